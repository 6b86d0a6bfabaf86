"""The broker's log: a line for each decision, bounded, never payload."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker_fixtures import (
    BrokerProcess,
    FakeLibrary,
    connect_pair,
    eventually,
    libraries,
    tcp_pair,
)
from commands import LOOPFUSE
from kept import kept
from loopfuse import _wire as wire
from loopfuse._broker_state.log import LONGEST_LINE, Allowance, Log
from loopfuse._control import order_defuse
from loopfuse._errors import BrokerError
from loopfuse._reasons import Reason
from loopfuse._segments import DIRECTION, DIRECTION_SIZE, header_of
from sessions import Session

CLIENT, SERVER = wire.Side.CLIENT, wire.Side.SERVER
Starts = Callable[..., BrokerProcess]
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (debug|info|warning|error): .+")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "broker.log"


@pytest.fixture
def start(tmp_path: Path, log: Path) -> Iterator[Starts]:
    """Starts a broker that logs into a file."""
    started: list[BrokerProcess] = []

    def go(*options: str) -> BrokerProcess:
        path = tmp_path / "broker.sock"
        started.append(BrokerProcess(path, "--log", str(log), *options))
        return started[-1]

    yield go
    for process in started:
        code, said = process.stop()
        assert (code, said) == (0, "")


def lines(log: Path) -> list[str]:
    return log.read_text().splitlines()


def of_connection(log: Path, number: int = 1) -> list[str]:
    """What is said of one connection."""
    mark = f" info: connection {number}: "
    return [line.partition(mark)[2] for line in lines(log) if mark in line]


def has(log: Path, words: str) -> Callable[[], bool]:
    return lambda: any(words in line for line in lines(log))


# -- what is told -----------------------------------------------------------------------


def test_each_decision_about_a_connection_is_a_line(start: Starts, log: Path) -> None:
    broker = start()
    with libraries(broker.path, 2) as (one, other):
        with tcp_pair() as pair:
            one.claim(pair.client, CLIENT)
            one.settle()
            other.claim(pair.server, SERVER)
            one.receive()
            order_defuse(broker.path, [1])
            ports = pair.client.getsockname()[1], pair.server.getsockname()[1]
        eventually(has(log, "connection 1: closed"), "the close is told")
    told = of_connection(log)
    assert [line.split(maxsplit=1)[0].rstrip(",;") for line in told] == [
        "claimed", "claimed", "paired", "defused", "closed",
    ]  # fmt: skip
    assert told[0].endswith(f"127.0.0.1:{ports[0]} to 127.0.0.1:{ports[1]}")
    assert f"pid {os.getpid()}" in told[0]
    assert told[3].startswith("defused, request: ordered by ")
    assert all(LINE.fullmatch(line) for line in lines(log))


def test_why_it_is_not_fused_is_told(start: Starts, log: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('default = "deny"\n')
    broker = start("--policy", str(policy))
    with libraries(broker.path, 1) as (one,), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        one.receive()
        one.claim(pair.server, SERVER, cookie=1)
        one.receive()
    assert f"not fused, policy (the default of {policy})" in of_connection(log)[1]
    assert has(log, "refused, not-verified")()


def test_what_a_library_says_is_told(start: Starts, log: Path) -> None:
    broker = start()
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair, tcp_pair() as second:
        one.claim(pair.client, CLIENT, declined=True, reason=int(Reason.STDIO))
        one.settle()
        assert of_connection(log, 1)[0].startswith("not fused, stdio, says ")
        one.claim(second.client, CLIENT)
        other.claim(second.server, SERVER)
        one.receive()
        one.claim(second.client, CLIENT, declined=True, reason=int(Reason.URGENT_DATA))
        one.settle()
        assert of_connection(log, 2)[-1].startswith("defused, urgent-data: says ")


def test_what_only_the_segment_says_is_told_once(start: Starts, log: Path) -> None:
    broker = start()
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        other.claim(pair.server, SERVER)
        segment = one.receive().fds[0]
        line = header_of(segment) + DIRECTION
        os.pwrite(segment, struct.pack("=I", 2), line + 8)
        os.pwrite(segment, struct.pack("=I", Reason.EXEC), line + 32)
        eventually(has(log, "connection 1: defused, exec"), "the end is told")
        time.sleep(1.5)
        assert sum("defused" in told for told in of_connection(log)) == 1
    assert DIRECTION_SIZE > 36


def test_real_programs_leave_no_payload_in_it(start: Starts, log: Path, library: Path) -> None:
    broker = start("--log-level", "debug")
    session = Session.under(library, broker, eager=True)
    with kept(session, session):
        assert has(log, "paired")()
    eventually(has(log, "closed"), "the close is told")
    assert "xxx" not in log.read_text()
    assert re.search(r"through the rings went \d+ bytes to the server", log.read_text())


def test_less_is_told_at_a_higher_level(start: Starts, log: Path) -> None:
    broker = start("--log-level", "warning")
    with libraries(broker.path, 1) as (one,), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        one.settle()
    assert lines(log) == []


# -- where it goes ----------------------------------------------------------------------


def test_a_dash_is_standard_output(tmp_path: Path) -> None:
    command = [*LOOPFUSE, "broker", "--log", "-", "--idle-exit", "0.1"]
    command += ["--socket", str(tmp_path / "broker.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "listening on" in done.stdout
    assert done.stderr == ""


def test_a_log_that_was_moved_away_is_made_anew_at_sighup(start: Starts, log: Path) -> None:
    broker = start()
    eventually(lambda: log.exists() and has(log, "listening")(), "it has begun")
    assert log.stat().st_mode & 0o777 == 0o600
    log.rename(log.with_suffix(".1"))
    os.kill(broker.pid, signal.SIGHUP)
    eventually(log.exists, "it is made anew")
    broker.stop()
    assert has(log, "leaving")()
    assert not has(log.with_suffix(".1"), "leaving")()


@pytest.mark.parametrize("target", ["/nonexistent/log", "/", "", "fifo"])
def test_a_log_that_cant_be_written_is_2(tmp_path: Path, target: str) -> None:
    if target == "fifo":
        target = str(tmp_path / "fifo")
        os.mkfifo(target)
    command = [*LOOPFUSE, "broker", "--log", target]
    command += ["--socket", str(tmp_path / "broker.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the log file" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "broker.sock").exists()


# -- how much of it ---------------------------------------------------------------------


def test_a_storm_of_connections_is_bounded(start: Starts, log: Path) -> None:
    broker = start("--log-level", "debug")
    pair = connect_pair()
    one = FakeLibrary(broker.path)
    try:
        for _ in range(3000):
            one.claim(pair.client, CLIENT, cookie=1)
            one.receive()
    finally:
        one.close()
        pair.close()
    assert len(lines(log)) < 1000
    broker.stop()
    assert len(lines(log)) < 1000


def test_an_allowance_bounds_the_burst_and_the_long_run() -> None:
    allowance = Allowance(10, 0.5)
    now = time.monotonic()
    assert sum(allowance.take(now) for _ in range(100)) == 10
    day = sum(allowance.take(now + second) for second in range(1, 86401))
    assert day in (43199, 43200)


def test_what_was_left_out_is_counted_and_warnings_come_through(log: Path) -> None:
    made = Log("info", str(log))
    for number in range(1000):
        made.info(f"line {number}")
    made.warning("grave")
    made.close()
    told = lines(log)
    assert len(told) == 601
    assert told[-1].endswith("warning: (400 lines left out before this one) grave")


def test_a_line_is_one_line_and_not_endless(log: Path) -> None:
    made = Log("info", str(log))
    made.info("a\nb\x1b[2J")
    made.info("x" * 10000)
    made.close()
    first, second = lines(log)
    assert first.endswith("info: a?b?[2J")
    assert len(second) == LONGEST_LINE - 1


def test_nobody_waits_for_a_log_that_nobody_reads() -> None:
    reading, writing = os.pipe()
    made = Log("info", f"/dev/fd/{writing}")
    begin = time.monotonic()
    for _ in range(600):
        made.info("x" * 1000)
    assert time.monotonic() - begin < 5
    made.close()
    os.close(writing)
    os.close(reading)


def test_a_full_disk_is_survived() -> None:
    made = Log("info", "/dev/full")
    made.info("x")
    made.close()


def test_a_file_that_cant_be_opened_raises(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="the log file"):
        Log("info", str(tmp_path / "none" / "log"))


def test_without_standard_error_it_is_written_nowhere(tmp_path: Path) -> None:
    prefix = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    process = BrokerProcess(tmp_path / "broker.sock", prefix=prefix)
    try:
        with libraries(process.path, 1) as (one,), tcp_pair() as pair:
            one.claim(pair.client, CLIENT)
            one.claim(pair.server, SERVER)
            assert isinstance(one.receive().body, wire.Fuse)
            assert isinstance(one.receive().body, wire.Fuse)
        assert (tmp_path / "broker.sock.lock").read_bytes() == b""
    finally:
        process.stop()
