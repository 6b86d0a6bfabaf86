"""`loopfuse tap` as a person sees it; slow readers, other users, pipes, signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, eventually
from commands import LOOPFUSE, loopfuse
from conftest import PROGRAMS, tool
from sessions import Session, free_port
from tap.captures import (
    Capture,
    assert_clean,
    await_tap,
    capturing,
    digests,
    fields,
    reassembled,
    tshark,
)
from tap.parties import parties

pytest_plugins = ["broker_fixtures"]
MIB = 1 << 20


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["prot 80"], "pcap-filter"),
        (["-w", "/nowhere/x"], "can't be written"),
        (["--port", "x"], "Invalid value"),
        (["--port", "65536"], "Invalid value"),
        (["-c", "0"], "Invalid value"),
        (["-B", "100000"], "Invalid value"),
    ],
)
def test_mistakes_are_told_with_exit_code_2(
    broker: BrokerProcess, arguments: list[str], text: str
) -> None:
    done = loopfuse(broker.path, "tap", *arguments)
    assert done.returncode == 2
    assert text in done.stderr


def test_a_filter_with_a_mistake_costs_no_file(broker: BrokerProcess, tmp_path: Path) -> None:
    file = tmp_path / "c.pcapng"
    file.write_bytes(b"precious")
    assert loopfuse(broker.path, "tap", "-w", str(file), "prot 80").returncode == 2
    assert file.read_bytes() == b"precious"


def test_a_file_is_for_its_owner_alone(broker: BrokerProcess, tmp_path: Path) -> None:
    file = tmp_path / "c.pcapng"
    file.write_bytes(b"x" * 100_000)
    file.chmod(0o644)
    with file.open("rb") as open_before:
        capture = Capture(broker.path, file)
        eventually(lambda: 0 < file.stat().st_size < 1000, "it begins anew")
        assert file.stat().st_mode & 0o777 == 0o600
        assert capture.end() == 0
        assert open_before.read() == b"x" * 100_000
    assert tshark(file) == []


def test_a_file_of_another_user_is_not_written(broker: BrokerProcess, tmp_path: Path) -> None:
    """Through a link: there it could not be replaced, and its owner would read it."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of other users")
    theirs, link = tmp_path / "theirs", tmp_path / "link"
    theirs.write_bytes(b"theirs")
    os.chown(theirs, 61001, 61001)
    link.symlink_to(theirs)
    done = loopfuse(broker.path, "tap", "-w", str(link))
    assert (done.returncode, "another user" in done.stderr) == (2, True)
    assert theirs.read_bytes() == b"theirs"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_with_the_sum_of_it(
    broker: BrokerProcess, tmp_path: Path, number: int
) -> None:
    capture = Capture(broker.path, tmp_path / "c.pcapng")
    assert capture.end(number) == 0
    assert "0 packets captured" in capture.said
    assert b"0 packets captured" in (tmp_path / "c.pcapng").read_bytes()


def test_the_brokers_end_ends_it(broker: BrokerProcess, tmp_path: Path) -> None:
    capture = Capture(broker.path, tmp_path / "c.pcapng")
    broker.kill()
    capture.process.wait(10)
    assert capture.end() == 0
    assert "the broker has gone" in capture.said
    assert tshark(tmp_path / "c.pcapng") == []


def test_the_terminal_shows_lines_without_payload(
    eagerly_fused: Session, session_broker: BrokerProcess
) -> None:
    command = [*LOOPFUSE, "tap", "-c", "5"]
    with parties(eagerly_fused, "pauses") as both:
        both.await_pause()
        (row,) = eagerly_fused.fused_rows(both.port)
        tap = subprocess.Popen(
            [*command, "--port", str(both.port)],
            env={**os.environ, "LOOPFUSE_BROKER": str(session_broker.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        await_tap(session_broker, row.id)
        both.go_on()
        both.await_pause()
        said, told = tap.communicate(timeout=60)
        both.go_on()
        both.digests()
    lines = said.splitlines()
    assert len(lines) == 5
    assert told.startswith("5 packets captured")
    end = rf"{re.escape(Path(sys.executable).name)}/\d+ 127.0.0.1:\d+"
    form = rf"\d\d:\d\d:\d\d\.\d{{9}} #\d+ {end} > {end} length 100"
    assert all(re.fullmatch(form, line) for line in lines), lines


def test_it_can_be_piped_into_tshark(eagerly_fused: Session, session_broker: BrokerProcess) -> None:
    """Live: tshark prints while the tap runs. When it leaves, so does the tap, without a word."""
    with parties(eagerly_fused, "pauses") as both:
        both.await_pause()
        (row,) = eagerly_fused.fused_rows(both.port)
        tap = subprocess.Popen(
            [*LOOPFUSE, "tap", "-w", "-", "--port", str(both.port)],
            env={**os.environ, "LOOPFUSE_BROKER": str(session_broker.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        command = [tool("tshark"), "-l", "-n", "-r", "-", "-c", "3"]
        shark = subprocess.Popen(
            command, stdin=tap.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert tap.stdout is not None and tap.stderr is not None
        tap.stdout.close()
        await_tap(session_broker, row.id)
        both.go_on()
        both.await_pause()
        lines, _ = shark.communicate(timeout=60)
        assert len(lines.splitlines()) == 3
        both.go_on()
        both.digests()
        assert tap.wait(20) == 0
        assert tap.stderr.read() == b""
        tap.stderr.close()


def bulk_seconds(session: Session, size: int) -> float:
    port = free_port()
    bulk = [sys.executable, str(PROGRAMS / "bulk.py")]
    server = subprocess.Popen(
        [*session.prefix, *bulk, "server", str(port)],
        env=session.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    begin = time.monotonic()
    client = session.run([*session.prefix, *bulk, "client", str(port), str(size)])
    said, _ = server.communicate(timeout=60)
    assert said == client.stdout
    return time.monotonic() - begin


def test_a_reader_that_sleeps_loses_packets_and_nothing_else(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    untapped = bulk_seconds(eagerly_fused, 256 * MIB)
    with capturing(broker_path, file, "-B", "1") as capture:
        os.kill(capture.process.pid, signal.SIGSTOP)
        tapped = bulk_seconds(eagerly_fused, 256 * MIB)
        os.kill(capture.process.pid, signal.SIGCONT)
        eventually(lambda: file.stat().st_size > MIB // 2, "it has caught up")
        # What comes later is captured again.
        with parties(eagerly_fused, "pauses") as both:
            for _ in range(2):
                both.await_pause()
                both.go_on()
            both.digests()
    lost, missing = capture.number("lost"), capture.number("bytes missing")
    assert lost > 1000 and 250 * MIB < missing < 256 * MIB
    assert len(fields(file, ["tcp.len"], "-Y", f"tcp.port == {both.port}")) > 20
    assert_clean(file, "-Y", f"tcp.port == {both.port} && tcp.analysis.flags")
    assert f"{lost} lost".encode() in file.read_bytes()
    # A loaded machine is no clock; a program that waited for the tap would never end.
    assert tapped < 3 * untapped + 3


def test_nobody_else_may_tap(eagerly_fused: Session, broker_path: Path, open_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    open_folder.chmod(0o777)
    file = open_folder / "c.pcapng"
    with parties(eagerly_fused, "pauses") as both:
        both.await_pause()
        with capturing(broker_path, file, prefix=_as_user(61001)) as capture:
            with parties(eagerly_fused, "sizes") as others:
                others.digests()
            both.go_on()
            both.await_pause()
        both.go_on()
        both.digests()
    assert "of other users are left out" in capture.said
    assert tshark(file) == []


def test_both_users_of_a_connection_see_both_directions(
    eagerly_fused: Session, broker_path: Path, open_folder: Path
) -> None:
    """Each user's programs write to a ring of their own; the capture is in order all the same."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as other users")
    if eagerly_fused.prefix:
        pytest.skip("setpriv does not live with ThreadSanitizer")
    open_folder.chmod(0o777)
    file = open_folder / "c.pcapng"
    alice, bob = _as_user(61001), _as_user(61002)
    with capturing(broker_path, file, prefix=alice) as capture:
        with parties(eagerly_fused, "sizes", alice, bob) as both:
            sent = both.digests()
    assert (capture.number("lost"), capture.number("bytes missing")) == (0, 0)
    assert digests(reassembled(file)) == sent
    assert_clean(file)


def _as_user(uid: int) -> list[str]:
    return [tool("setpriv"), f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def test_a_connection_of_another_user_is_refused_by_its_id(
    eagerly_fused: Session, broker_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    with parties(eagerly_fused, "pauses") as both:
        both.await_pause()
        (row,) = eagerly_fused.fused_rows(both.port)
        command = _as_user(61001)
        command += [*LOOPFUSE, "tap", "--id", str(row.id)]
        done = subprocess.run(
            command,
            env={**os.environ, "LOOPFUSE_BROKER": str(broker_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        both.go_on()
        both.await_pause()
        both.go_on()
        both.digests()
    assert (done.returncode, done.stdout) == (2, "")
    assert "another user" in done.stderr
