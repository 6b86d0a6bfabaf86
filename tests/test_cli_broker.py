"""`loopfuse ps`, `defuse` and `broker`: what a person sees."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from broker_fixtures import (
    BrokerProcess,
    FakeLibrary,
    TcpPair,
    eventually,
    libraries,
    tcp_pair,
    tcp_pairs,
)
from commands import LOOPFUSE, at_terminal, loopfuse
from loopfuse import _wire as wire
from loopfuse._cli import ps
from loopfuse._control import fetch_rows, fetch_status
from loopfuse._kernel import netns_cookie
from loopfuse._messages import EndRow
from loopfuse._reasons import Reason
from loopfuse._segments import (
    BROKER_WISH,
    DIRECTION,
    DIRECTION_SIZE,
    READER,
    RING_DEFAULT,
    TAIL,
    WRITER,
    header_of,
    read_segment,
)
from top.made_up import row

pytest_plugins = ["broker_fixtures"]
CLIENT, SERVER = wire.Side.CLIENT, wire.Side.SERVER
_WAIT_FIELDS = [
    "rings",
    "sleeping",
    "sleeps",
    "spins_paid",
    "spins_vain",
    "wake_seconds",
    "wakes",
]


@pytest.fixture
def pair() -> Iterator[TcpPair]:
    with tcp_pair() as both:
        yield both


@pytest.fixture
def segment(broker: BrokerProcess, pair: TcpPair) -> Iterator[int]:
    """The memory of a pair that claims to be fused, with id 1."""
    with libraries(broker.path, 2) as (one, other):
        one.claim(pair.client, CLIENT)
        other.claim(pair.server, SERVER)
        message = one.receive()
        assert isinstance(message.body, wire.Fuse) and message.body.pair_id == 1
        fd = message.fds[0]
        for index, head in enumerate((1234, 5678901)):
            line = header_of(fd) + DIRECTION + index * DIRECTION_SIZE
            os.pwrite(fd, struct.pack("=QI", head, 1), line)
        yield fd


@pytest.mark.parametrize("reason", [None, "too-late", "no-counterpart", "packet-filter-on-payload"])
@pytest.mark.parametrize(
    "client, server",
    [
        (("redis-benchmark", 19025), ("redis-server", 18497)),
        (("sh", 9), ("queue-of-orders", 1_048_576)),
        (("queue-of-orders", 1_048_576), ("sh", 9)),
    ],
)
def test_ps_leaves_names_and_addresses_whole_in_80_columns(
    monkeypatch: pytest.MonkeyPatch,
    client: tuple[str, int],
    server: tuple[str, int],
    reason: str | None,
) -> None:
    screen = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr("loopfuse._cli.screen.console", lambda: screen)
    ends = [EndRow(end[1], end[0], 0, "127.0.0.1", 41224) for end in (client, server)]
    ps._print_table([row(2, 2_400_000, 347_000, client=ends[0], server=ends[1], reason=reason)])
    said = screen.file.getvalue()  # type: ignore[attr-defined]
    words = {f"{name}/{pid}" for name, pid in (client, server)} | {"127.0.0.1:41224"}
    words |= {reason} if reason else set()
    assert words <= set(said.split()), said
    assert max(map(len, said.splitlines())) <= 80
    # Names take no more room than they need: the column stays while reasons are short.
    assert ("REASON" in said) == (reason in (None, "too-late")), said


def test_ps_without_a_broker_is_no_error(tmp_path: Path) -> None:
    done = loopfuse(tmp_path / "none.sock", "ps")
    assert done.returncode == 0
    assert "no broker is running" in done.stdout
    assert json.loads(loopfuse(tmp_path / "none.sock", "ps", "--json").stdout) == []


def test_ps_of_an_idle_broker_is_no_error(broker: BrokerProcess) -> None:
    done = loopfuse(broker.path, "ps")
    assert done.returncode == 0
    assert "No connections" in done.stdout
    assert json.loads(loopfuse(broker.path, "ps", "--json").stdout) == []


def test_ps_json_has_every_field(broker: BrokerProcess, segment: int, pair: TcpPair) -> None:
    (row,) = json.loads(loopfuse(broker.path, "ps", "--json").stdout)
    comm = Path("/proc/self/comm").read_text().strip()
    me = {"pid": os.getpid(), "comm": comm, "uid": os.getuid(), "addr": "127.0.0.1"}
    since = row.pop("since")
    assert row.pop("ring_size") == RING_DEFAULT
    for flow, head in ((row.pop("to_server"), 1234), (row.pop("to_client"), 5678901)):
        assert flow["unread"] == min(head, RING_DEFAULT)
        assert flow["messages"] == 0
        for who in ("reader", "writer"):
            assert sorted(flow[who]) == _WAIT_FIELDS
            assert not flow[who]["sleeping"]
    assert row == {
        "id": 1,
        "state": "fused",
        "reason": None,
        "detail": None,
        "family": "ipv4",
        "client": {**me, "port": pair.client.getsockname()[1]},
        "server": {**me, "port": pair.server.getsockname()[1]},
        "bytes_to_server": 1234,
        "bytes_to_client": 5678901,
        "netns_cookie": netns_cookie(pair.client),
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", since)


def test_counters_are_not_sent_unless_asked_for(broker: BrokerProcess, segment: int) -> None:
    (row,) = broker.rows()
    assert (row.ring_size, row.to_server, row.to_client) == (None, None, None)


def test_who_sleeps_is_told_by_flag_and_ring(broker: BrokerProcess, segment: int) -> None:
    def sleeping() -> list[bool]:
        (row,) = fetch_rows(broker.path, counters=True)
        assert row.to_server is not None
        return [row.to_server.reader.sleeping, row.to_server.writer.sleeping]

    line = header_of(segment) + DIRECTION
    for at in (READER, WRITER):
        os.pwrite(segment, struct.pack("=II", 1, 1000), line + at)
    assert sleeping() == [False, True]  # 1234 bytes are unread: more than 1000
    os.pwrite(segment, struct.pack("=I", 2000), line + WRITER + 4)
    assert sleeping() == [False, False]
    os.pwrite(segment, struct.pack("=Q", 1234), line + TAIL)
    assert sleeping() == [True, False]


def test_counters_that_can_not_be_are_shown_as_they_are(
    broker: BrokerProcess, segment: int
) -> None:
    """A peer may write anything into the memory; the broker must take it in its stride."""
    size = 2 * DIRECTION_SIZE
    os.pwrite(segment, b"\xff" * size, header_of(segment) + DIRECTION)
    (row,) = json.loads(loopfuse(broker.path, "ps", "--json").stdout)
    assert row["to_client"]["writer"]["rings"] == 2**64 - 1
    assert row["to_client"]["unread"] == 0


def test_ps_prints_a_row_for_a_person(broker: BrokerProcess, segment: int) -> None:
    done = loopfuse(broker.path, "ps")
    assert done.returncode == 0
    header, row = done.stdout.splitlines()
    assert header.split() == ["ID", "STATE", "CLIENT", "SERVER", "SENT", "RECEIVED", "REASON"]
    assert row.split()[:2] == ["1", "fused"]
    assert f"/{os.getpid()} 127.0.0.1:" in row
    assert "1.2K" in row and "5.4M" in row


def test_ps_live_leaves_closed_rows_out(broker: BrokerProcess, segment: int, pair: TcpPair) -> None:
    pair.close()
    eventually(lambda: [row.state for row in broker.rows()] == ["closed"], "it is closed")
    assert "closed" in loopfuse(broker.path, "ps").stdout
    assert "closed" not in loopfuse(broker.path, "ps", "--live").stdout
    assert json.loads(loopfuse(broker.path, "ps", "--live", "--json").stdout) == []


def test_ps_shows_more_rows_than_a_packet_holds(broker: BrokerProcess) -> None:
    with tcp_pairs(300) as pairs:
        with libraries(broker.path, 1) as (one,):
            for both in pairs:
                one.claim(both.client, CLIENT)
            one.settle()
            rows = json.loads(loopfuse(broker.path, "ps", "--json").stdout)
            assert [row["id"] for row in rows] == list(range(1, 301))


def test_ps_fits_a_terminal_of_80_columns(broker: BrokerProcess, segment: int) -> None:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", at_terminal(broker.path, "ps")).splitlines()
    assert any("fused" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_defuse_writes_the_wish_into_the_segment(broker: BrokerProcess, segment: int) -> None:
    done = loopfuse(broker.path, "defuse", "1")
    assert done.returncode == 0
    assert "connection 1 goes back to TCP" in done.stdout
    assert read_segment(segment).broker_wish == Reason.REQUEST


def test_defuse_all_takes_every_pair(broker: BrokerProcess, segment: int) -> None:
    done = loopfuse(broker.path, "defuse", "--all")
    assert done.returncode == 0
    assert "connection 1" in done.stdout
    assert os.pread(segment, 4, header_of(segment) + BROKER_WISH) == struct.pack(
        "=I", Reason.REQUEST
    )


def test_defuse_all_of_nothing_is_no_error(broker: BrokerProcess, tmp_path: Path) -> None:
    for path in (broker.path, tmp_path / "none.sock"):
        done = loopfuse(path, "defuse", "--all")
        assert (done.returncode, done.stderr) == (0, "")
        assert "is fused" in done.stdout


def test_defusing_what_is_plain_already_is_no_error(broker: BrokerProcess, segment: int) -> None:
    for index in (0, 1):
        line = header_of(segment) + DIRECTION + index * DIRECTION_SIZE
        os.pwrite(segment, struct.pack("=I", 2), line + 8)
    done = loopfuse(broker.path, "defuse", "1")
    assert done.returncode == 0
    assert "is not fused" in done.stdout


def test_defusing_an_unknown_id_is_an_error(broker: BrokerProcess, segment: int) -> None:
    done = loopfuse(broker.path, "defuse", "1", "4711")
    assert done.returncode == 2
    assert "4711 is not known" in done.stderr
    assert "connection 1 goes back" in done.stdout


def test_defuse_wants_ids_or_all(tmp_path: Path) -> None:
    for arguments in ([], ["1", "--all"], ["one"], ["1", "--", "-3x"]):
        assert loopfuse(tmp_path / "none.sock", "defuse", *arguments).returncode == 2
    done = loopfuse(tmp_path / "none.sock", "defuse", "1")
    assert done.returncode == 2
    assert "no broker is running" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ring-size", "5000"],
        ["--ring-size", "2048"],
        ["--ring-size", str(32 << 20)],
        ["--idle-exit", "-1"],
        ["--log-level", "loud"],
        ["--socket", "/nonexistent/broker.sock"],
        ["--socket", "/tmp/" + "x" * 120],
    ],
)
def test_bad_broker_options_are_explained(tmp_path: Path, arguments: list[str]) -> None:
    done = loopfuse(tmp_path / "broker.sock", "broker", *arguments)
    assert done.returncode == 2
    assert "Error:" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["broker", "--socket", "broker.sock"],
        ["broker", "--policy", "policy.toml"],
        ["broker", "--socket", "broker.sock", "status"],
        ["run", "--policy", "policy.toml", "--", "true"],
    ],
)
def test_a_current_directory_that_is_gone_is_explained(
    tmp_path: Path, arguments: list[str]
) -> None:
    gone = 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", gone, str(tmp_path / "gone"), *LOOPFUSE, *arguments],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert "Error:" in done.stderr and "which is gone" in done.stderr


@pytest.mark.parametrize("seconds", ["3000000", "inf"])
def test_a_broker_may_be_told_to_stay_for_months(tmp_path: Path, seconds: str) -> None:
    process = BrokerProcess(tmp_path / "broker.sock", "--idle-exit", seconds)
    eventually(lambda: len(fetch_rows(process.path)) == 0, "it answers")
    code, said = process.stop()
    assert (code, "Traceback" in said) == (0, False), said


def test_the_ring_size_is_what_was_asked_for(tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "broker.sock", "--ring-size", "4096")
    try:
        with libraries(process.path, 1) as (one,), tcp_pair() as both:
            one.claim(both.client, CLIENT)
            one.claim(both.server, SERVER)
            message = one.receive()
            assert isinstance(message.body, wire.Fuse)
            assert message.body.ring_size == 4096
            assert os.fstat(message.fds[0]).st_size == 4096 * 3
    finally:
        process.stop()


def test_status_counts_what_happened(broker: BrokerProcess, segment: int) -> None:
    with libraries(broker.path, 1) as (one,), tcp_pair() as both:
        one.claim(both.client, CLIENT, cookie=1)
        one.receive()
        one.claim(both.client, CLIENT)
        one.settle()
        status = fetch_status(broker.path)
        assert status.pid == broker.pid
        assert status.states == {"fused": 1, "plain": 1}
        assert status.reasons == {"not-verified": 1}
        assert status.clients >= 3


@pytest.mark.parametrize(
    "request_", [b"{", b"{}", b'{"request":"ps","x":1}', b'{"request":"defuse","ids":["x"]}']
)
def test_a_request_that_makes_no_sense_gets_an_error(
    broker: BrokerProcess, request_: bytes
) -> None:
    library = FakeLibrary(broker.path, greet=False)
    library.send(request_)
    reply = json.loads(library.socket.recv(4096))
    assert reply["last"] and "request" in reply["error"]
    library.close()


def test_a_broker_that_speaks_another_language_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as imposter:
        imposter.bind(str(path))
        imposter.listen()

        def reply() -> None:
            accepted, _ = imposter.accept()
            with accepted:
                accepted.recv(4096)
                accepted.send(b'{"rows":[{"id":"one"}],"last":true}')

        thread = threading.Thread(target=reply)
        thread.start()
        done = loopfuse(path, "ps")
        thread.join(10)
    assert done.returncode == 1
    assert "no proper answer" in done.stderr
