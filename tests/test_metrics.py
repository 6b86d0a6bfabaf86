"""`loopfuse broker --metrics`: what it serves, and that nobody who asks can harm the broker."""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from broker_fixtures import (
    START,
    BrokerProcess,
    FakeLibrary,
    TcpPair,
    connect_pair,
    eventually,
    libraries,
    tcp_pair,
)
from commands import LOOPFUSE
from conftest import tool
from loopfuse import _wire as wire
from loopfuse._broker_state.scrapes import MOST_VISITORS, PATIENCE, Address, Scrapes, parse_address
from loopfuse._broker_state.tally import Tally
from loopfuse._control import order_defuse
from loopfuse._errors import MetricsError
from loopfuse._segments import DIRECTION, DIRECTION_SIZE, READER, TAIL, header_of, make_segment
from scrape import Samples, samples_of

prometheus_parser = pytest.importorskip("prometheus_client.parser")
CLIENT, SERVER = wire.Side.CLIENT, wire.Side.SERVER


class Metrics:
    """A broker that serves metrics, and who asks it."""

    def __init__(self, path: Path, *options: str) -> None:
        log = path.with_suffix(".log")
        command = [*LOOPFUSE, "broker", "--socket", str(path)]
        command += ["--metrics", "127.0.0.1:0", *options]
        with log.open("wb") as errors:
            self.process = subprocess.Popen(command, stderr=errors)
        self.path = path
        self._log = log
        eventually(lambda: "listening on" in log.read_text(), "it listens", START)
        found = re.search(r"metrics: http://127\.0\.0\.1:(\d+)/metrics", log.read_text())
        assert found
        self.port = int(found[1])

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) == 0
        assert "Traceback" not in self._log.read_text(), self._log.read_text()

    def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Head and body of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as sock:
            sock.sendall(request)
            said = b""
            while data := sock.recv(65536):
                said += data
        head, _, body = said.partition(b"\r\n\r\n")
        return head, body

    def text(self) -> str:
        head, body = self.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200 ")
        return body.decode()

    def samples(self) -> Samples:
        return samples_of(self.text())

    def becomes(self, name: str, value: float, *labels: str) -> None:
        key = (f"loopfuse_{name}", labels)
        eventually(lambda: self.samples().get(key) == value, f"{key} is {value}")


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    served = Metrics(tmp_path / "broker.sock")
    yield served
    served.stop()


class Fused:
    """A pair that claims to be fused, and what it writes into its memory."""

    def __init__(self, path: Path) -> None:
        self.one, self.other = FakeLibrary(path), FakeLibrary(path)
        self.pair: TcpPair = connect_pair()
        self.one.claim(self.pair.client, CLIENT)
        self.other.claim(self.pair.server, SERVER)
        self.fd = self.one.receive().fds[0]
        self.other.receive()
        self.write(0, "=QI", 0, 1)

    def write(self, offset: int, form: str, *values: int, direction: int = 0) -> None:
        at = header_of(self.fd) + DIRECTION + direction * DIRECTION_SIZE + offset
        os.pwrite(self.fd, struct.pack(form, *values), at)

    def close(self) -> None:
        self.pair.close()
        self.one.close()
        self.other.close()


@pytest.fixture
def fused(metrics: Metrics) -> Iterator[Fused]:
    pair = Fused(metrics.path)
    yield pair
    pair.close()


def test_what_a_segment_counts_is_told(metrics: Metrics, fused: Fused) -> None:
    fused.write(0, "=Q", 5000)
    fused.write(0x30, "=Q", 70)  # messages
    fused.write(READER + 8, "=Q", 4)  # rings
    fused.write(TAIL + 8, "=QQQQ8I", 11, 12, 5, 150_000, 0, 0, 1, 0, 2, 0, 0, 1)
    metrics.becomes("ring_bytes_total", 5000, "to_server")
    samples = metrics.samples()
    expected = {
        ("ring_messages_total", ("to_server",)): 70,
        ("doorbells_total", ("reader",)): 4,
        ("spins_total", ("paid", "reader")): 11,
        ("spins_total", ("reader", "vain")): 12,
        ("sleeps_total", ("reader",)): 5,
        ("wakeup_seconds_sum", ("reader",)): 150e-6,
        ("wakeup_seconds_count", ("reader",)): 4,
        ("wakeup_seconds_bucket", ("0.0001", "reader")): 3,
        ("wakeup_seconds_bucket", ("1e-05", "reader")): 0,
        ("fused_total", ()): 1,
        ("connections", ("fused",)): 1,
        ("pairing_seconds_count", ()): 1,
    }
    assert {key: samples[f"loopfuse_{key[0]}", key[1]] for key in expected} == expected
    assert 0 < samples["loopfuse_pairing_seconds_sum", ()] < 10


def test_counts_outlast_their_connection(metrics: Metrics) -> None:
    first = Fused(metrics.path)
    first.write(0, "=Q", 5000)
    first.close()  # perhaps before it was ever read
    metrics.becomes("connections", 0, "fused")
    metrics.becomes("ring_bytes_total", 5000, "to_server")
    second = Fused(metrics.path)
    second.write(0, "=Q", 70)
    metrics.becomes("ring_bytes_total", 5070, "to_server")
    second.close()
    metrics.becomes("connections", 0, "fused")
    assert metrics.samples()["loopfuse_ring_bytes_total", ("to_server",)] == 5070
    assert metrics.samples()["loopfuse_fused_total", ()] == 2


def test_no_program_can_make_a_count_go_down_or_jump(metrics: Metrics, fused: Fused) -> None:
    fused.write(0, "=Q", 5000)
    metrics.becomes("ring_bytes_total", 5000, "to_server")
    fused.write(0, "=Q", 10)
    fused.write(0, "=Q", 20, direction=1)
    metrics.becomes("ring_bytes_total", 20, "to_client")
    assert metrics.samples()["loopfuse_ring_bytes_total", ("to_server",)] == 5000
    fused.write(0, "=Q", 2**64 - 1)
    metrics.becomes("errors_total", 1, "impossible-count")
    assert metrics.samples()["loopfuse_ring_bytes_total", ("to_server",)] == 5000


def test_classes_of_wake_ups_begin_anew_at_their_end(metrics: Metrics, fused: Fused) -> None:
    fused.write(TAIL + 8 + 32, "=I", 2**32 - 1)
    metrics.becomes("wakeup_seconds_count", 2**32 - 1, "reader")
    fused.write(TAIL + 8 + 32, "=I", 4)
    metrics.becomes("wakeup_seconds_count", 2**32 + 4, "reader")


def test_what_is_declined_and_defused_is_told_by_reason(metrics: Metrics, fused: Fused) -> None:
    with libraries(metrics.path, 1) as (library,), tcp_pair() as pair, tcp_pair() as alone:
        library.claim(pair.client, CLIENT, cookie=1)
        library.receive()
        metrics.becomes("declined_total", 1, "not-verified")
        library.claim(alone.client, CLIENT)
        library.settle()
        assert metrics.samples()["loopfuse_declined_total", ("no-counterpart",)] == 0
    # It never had one.
    metrics.becomes("declined_total", 1, "no-counterpart")
    order_defuse(metrics.path, [1])
    assert metrics.samples()["loopfuse_defused_total", ("request",)] == 0
    fused.write(8, "=I", 2)
    fused.write(0x20, "=I", 32)
    metrics.becomes("defused_total", 1, "request")
    time.sleep(1.5)  # read again, it is still the same one
    assert metrics.samples()["loopfuse_defused_total", ("request",)] == 1


def test_reasons_that_programs_make_up_are_one(metrics: Metrics, fused: Fused) -> None:
    fused.write(8, "=I", 2)
    fused.write(0x20, "=I", 4711)
    metrics.becomes("defused_total", 1, "unknown")
    assert "4711" not in metrics.text()


def test_errors_are_told_by_kind(metrics: Metrics) -> None:
    library = FakeLibrary(metrics.path, greet=False)
    library.send(b"x" * 80)
    assert library.is_dropped()
    library.close()
    metrics.becomes("errors_total", 1, "protocol")


def test_names_and_units_are_prometheus_own(metrics: Metrics, fused: Fused) -> None:
    for family in prometheus_parser.text_string_to_metric_families(metrics.text()):
        assert family.name.startswith("loopfuse_")
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        assert not re.search(r"_(us|ms|ns|kb|mb|count)$", family.name)


def test_promtool_finds_nothing_to_mend(metrics: Metrics, fused: Fused) -> None:
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=metrics.text(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_metric_is_in_the_documentation(metrics: Metrics) -> None:
    page = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text()
    names = re.findall(r"^# TYPE (\S+)", metrics.text(), re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert f"`{name}" in page, name


# -- HTTP ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"GET /metrics HTTP/1.0\n\n", b"200"),
        (b"GET /secret HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"405"),
        (b"hello\r\n\r\n", b"400"),
        (b"GET /metrics SMTP\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"\x00\xff" * 40 + b"\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 8200, b"431"),
    ],
    ids=range(10),
)
def test_requests_are_answered_or_refused(metrics: Metrics, request_: bytes, status: bytes) -> None:
    head, _ = metrics.ask(request_)
    assert head.startswith(b"HTTP/1.0 " + status)


def test_head_gets_no_body(metrics: Metrics) -> None:
    head, body = metrics.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert b"Content-Type: text/plain; version=0.0.4" in head
    assert body == b""


def _pairs(path: Path) -> float:
    """Seconds that a pairing takes. `PATIENCE` or more, if it has to wait for a visitor to go."""
    start = time.monotonic()
    Fused(path).close()
    return time.monotonic() - start


def test_the_slow_and_the_silent_keep_nobody_from_anything(metrics: Metrics) -> None:
    """More of them than there is room for: the oldest go, and others are served meanwhile."""
    crowd: list[socket.socket] = []
    try:
        for number in range(3 * MOST_VISITORS):
            crowd.append(socket.create_connection(("127.0.0.1", metrics.port), timeout=10))
            if number % 2:
                crowd[-1].sendall(b"GET /metr")
        assert _pairs(metrics.path) < PATIENCE
        assert "loopfuse_fused_total" in metrics.text()
        assert crowd[0].recv(1) == b""
        count = len(list(Path(f"/proc/{metrics.process.pid}/fd").iterdir()))
        assert count < MOST_VISITORS + 30
    finally:
        for sock in crowd:
            sock.close()


def test_a_visit_ends_when_its_time_is_up(metrics: Metrics) -> None:
    with socket.create_connection(("127.0.0.1", metrics.port), timeout=4 * PATIENCE) as sock:
        start = time.monotonic()
        for _ in range(2):
            sock.sendall(b"G")
            time.sleep(0.5)
        assert sock.recv(1) == b""
        assert time.monotonic() - start > PATIENCE - 1


def test_who_does_not_read_is_shown_out(metrics: Metrics) -> None:
    socks = []
    for _ in range(5):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(("127.0.0.1", metrics.port))
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        socks.append(sock)
    assert _pairs(metrics.path) < PATIENCE
    for sock in socks:
        sock.close()


def test_a_flood_of_requests_does_not_stop_the_pairing(metrics: Metrics) -> None:
    code = (
        "import socket,sys\n"
        "for _ in range(3000):\n"
        "    with socket.create_connection(('127.0.0.1', int(sys.argv[1]))) as s:\n"
        "        s.sendall(b'GET /metrics HTTP/1.0\\r\\n\\r\\n')\n"
        "        while s.recv(65536): pass\n"
    )
    flood = subprocess.Popen([sys.executable, "-c", code, str(metrics.port)])
    try:
        time.sleep(0.3)
        assert max(_pairs(metrics.path) for _ in range(10)) < PATIENCE
    finally:
        flood.terminate()
        flood.wait(10)


# -- the option ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9397", ("127.0.0.1", 9397)),
        (":9397", ("127.0.0.1", 9397)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:2", ("::1", 2)),
        ("localhost:3", ("localhost", 3)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == Address(*address)


@pytest.mark.parametrize(
    "text", ["", "x", "1:2:3", "::1:2", "host:", "host:70000", "h:-1", "h:²", "h:" + 5000 * "9"]
)
def test_what_is_no_address_is_explained(text: str) -> None:
    with pytest.raises(MetricsError, match="no address"):
        parse_address(text)


@pytest.mark.parametrize("host", ["a..b", 70 * "x"])
def test_what_can_be_no_hosts_name_is_explained(host: str) -> None:
    with select.epoll() as epoll, pytest.raises(MetricsError, match="can't be served"):
        Scrapes(Address(host, 0), bytes, "text/plain", epoll)


def broker(path: Path, address: str, **extra: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*LOOPFUSE, "broker", "--socket", str(path), "--metrics", address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **extra,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("address", ["soon", "192.0.2.1:9", "no.such.host.invalid:9"])
def test_a_bad_address_is_an_error(tmp_path: Path, address: str) -> None:
    done = broker(tmp_path / "broker.sock", address)
    assert done.returncode == 2
    assert "Error:" in done.stderr


def test_a_port_in_use_is_an_error(metrics: Metrics, tmp_path: Path) -> None:
    done = broker(tmp_path / "other.sock", str(metrics.port))
    assert done.returncode == 2
    assert "can't be served" in done.stderr and "in use" in done.stderr


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules['prometheus_client'] = None\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = broker(tmp_path / "broker.sock", "0", env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 2
    assert "loopfuse[metrics]" in done.stderr


def test_metrics_are_off_by_default(tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "broker.sock")
    links = []
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # one that it opened for a moment
            links.append(str(entry.readlink()))
    inodes = {link for link in links if link.startswith("socket:")}
    tcp = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    process.stop()
    held = {f"socket:[{line.split()[9]}]" for line in tcp.splitlines() if len(line.split()) > 9}
    assert not inodes & held


# -- many connections ----------------------------------------------------------------------


class _Connection:
    """As much of one as is read."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.segment = make_segment(number, 4096)
        self.paired = True
        self.reason = 0


def test_reading_many_takes_its_turns() -> None:
    connections = [_Connection(number) for number in range(1, 101)]
    for connection in connections:
        os.pwrite(
            connection.segment, struct.pack("=Q", 10), header_of(connection.segment) + DIRECTION
        )
    tally = Tally(reads=True)
    turns = 0
    while sum(tally.states.values()) < 100 and turns < 100:
        due = tally.due()
        assert due is not None
        time.sleep(max(due - time.monotonic(), 0))
        tally.run(connections)  # type: ignore[arg-type]
        turns += 1
    assert 4 <= turns < 10
    assert tally.to_server.bytes == 1000
    for connection in connections:
        os.close(connection.segment)
