"""Clients that send garbage, do not read, or die: each costs itself and nobody else."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker_fixtures import (
    PATIENCE,
    START,
    BrokerProcess,
    FakeLibrary,
    answers,
    claim_of,
    eventually,
    libraries,
    tcp_pair,
    tcp_pairs,
)
from commands import LOOPFUSE
from loopfuse import _wire as wire
from loopfuse._reasons import Reason

pytest_plugins = ["broker_fixtures"]
CLIENT, SERVER = wire.Side.CLIENT, wire.Side.SERVER


def still_serves(broker: BrokerProcess) -> bool:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        other.claim(pair.server, SERVER)
        return isinstance(one.receive().body, wire.Fuse)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(garbage=st.binary(min_size=1, max_size=200).filter(lambda b: not b.startswith(b"{")))
def test_garbage_costs_its_sender_the_connection(broker: BrokerProcess, garbage: bytes) -> None:
    library = FakeLibrary(broker.path, greet=False)
    try:
        library.send(garbage)
        assert library.is_dropped()
    finally:
        library.close()


def test_the_broker_serves_on_after_garbage(broker: BrokerProcess) -> None:
    for garbage in (b"\0", b"GET / HTTP/1.0\r\n\r\n", os.urandom(80), b"x" * 60000):
        library = FakeLibrary(broker.path, greet=False)
        library.send(garbage)
        assert library.is_dropped()
        library.close()
    assert still_serves(broker)


def _truncated() -> Iterator[bytes]:
    with tcp_pair() as pair:
        packets = [
            wire.pack_hello(wire.Hello(0, 1)),
            wire.pack_claim(claim_of(pair.client, CLIENT)),
            wire.pack_closed(wire.Closed(1, 1)),
        ]
    for packet in packets:
        yield packet[:-1]
        yield packet + b"\0"
        yield packet[:8]
        yield struct.pack("=IHH", wire.MAGIC, wire.VERSION + 1, 1) + packet[8:]


def test_a_packet_of_the_wrong_size_or_version_costs_the_connection(
    broker: BrokerProcess,
) -> None:
    for packet in _truncated():
        library = FakeLibrary(broker.path)
        library.send(packet)
        assert library.is_dropped(), packet
        library.close()


@pytest.mark.parametrize("kind", [wire.Type.WELCOME, wire.Type.FUSE, wire.Type.REFUSE])
def test_what_only_brokers_say_costs_the_connection(broker: BrokerProcess, kind: wire.Type) -> None:
    packet = {
        wire.Type.WELCOME: wire.pack_welcome(wire.Welcome(4096)),
        wire.Type.FUSE: wire.pack_fuse(wire.Fuse(1, 1, 0, 4096, 0)),
        wire.Type.REFUSE: wire.pack_refuse(wire.Refuse(1, 1)),
    }[kind]
    with libraries(broker.path, 1) as (library,):
        library.send(packet)
        assert library.is_dropped()


def test_a_claim_before_hello_costs_the_connection(broker: BrokerProcess) -> None:
    library = FakeLibrary(broker.path, greet=False)
    with tcp_pair() as pair:
        library.claim(pair.client, CLIENT)
        assert library.is_dropped()
    library.close()


@pytest.mark.parametrize("field", [{"family": 1}, {"side": 2}])
def test_an_impossible_claim_costs_the_connection(
    broker: BrokerProcess, field: dict[str, Any]
) -> None:
    with libraries(broker.path, 1) as (library,), tcp_pair() as pair:
        library.send(wire.pack_claim(claim_of(pair.client, CLIENT)._replace(**field)))
        assert library.is_dropped()


def test_descriptors_sent_to_the_broker_do_not_stay_there(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (library,):
        library.settle()
        before = broker.descriptors()
        for _ in range(20):
            socket.send_fds(library.socket, [b'{"request":"nonsense"}'], [0, 1, 2])
            assert library.socket.recv(4096)
        eventually(lambda: broker.descriptors() <= before, "they are closed")


def flood(library: FakeLibrary, packet: bytes) -> None:
    """Sends without ever reading, until the broker has had enough of it."""
    library.socket.settimeout(0.2)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            library.send(packet)
        except TimeoutError:
            continue
        except OSError:
            return
    raise AssertionError("the broker puts up with it")


def test_a_client_that_never_reads_is_dropped(broker: BrokerProcess) -> None:
    library = FakeLibrary(broker.path)
    with tcp_pair() as pair:
        flood(library, wire.pack_claim(claim_of(pair.client, CLIENT)._replace(cookie=1)))
    library.close()
    assert still_serves(broker)


def test_a_command_line_that_never_reads_is_dropped(broker: BrokerProcess) -> None:
    library = FakeLibrary(broker.path, greet=False)
    flood(library, b'{"request":"ps"}')
    library.close()
    assert still_serves(broker)


def test_a_slow_reader_gets_everything_in_the_end(broker: BrokerProcess) -> None:
    """More answers than a socket's buffer holds, descriptors and all."""
    count = 400
    with libraries(broker.path, 2) as (slow, other):
        with tcp_pairs(count) as pairs:
            for pair in pairs:
                slow.claim(pair.client, CLIENT)
                other.claim(pair.server, SERVER)
                assert isinstance(other.receive().body, wire.Fuse)
            assert slow.mail() < count + 1, "the test needs more messages than fit"
            inodes = set()
            for _ in range(count):
                message = slow.receive()
                assert isinstance(message.body, wire.Fuse)
                inodes.add(os.fstat(message.fds[0]).st_ino)
            assert len(inodes) == count
            eventually(lambda: slow.mail() == count + 1, "the mailbox has counted all")


def test_a_client_dropped_with_messages_waiting_leaves_no_descriptor(
    broker: BrokerProcess,
) -> None:
    count = 400
    with libraries(broker.path, 1) as (other,):
        other.settle()
        before = broker.descriptors()
        slow = FakeLibrary(broker.path)
        with tcp_pairs(count) as pairs:
            for pair in pairs:
                slow.claim(pair.client, CLIENT)
                other.claim(pair.server, SERVER)
                assert isinstance(other.receive().body, wire.Fuse)
            slow.close()
        eventually(lambda: broker.descriptors() == before, "everything is given back")


_VICTIM = """
import socket, sys, time
sys.path[:0] = [sys.argv[2]]
from broker_fixtures import FakeLibrary, claim_of
from loopfuse import _wire as wire
from pathlib import Path
from typing import Any
library = FakeLibrary(Path(sys.argv[1]))
sock = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
library.claim(sock, wire.Side.CLIENT)
library.settle()
print("claimed", flush=True)
time.sleep(60)
"""


@contextmanager
def victim(broker: BrokerProcess, port: int) -> Iterator[subprocess.Popen[str]]:
    """A process that has claimed its end of a connection to `port`."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", _VICTIM, str(broker.path), here, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "claimed\n"
            yield process
        finally:
            process.kill()


def test_a_client_killed_after_its_claim_leaves_nothing(broker: BrokerProcess) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        victim(broker, listener.getsockname()[1]) as process,
        libraries(broker.path, 1) as (one,),
    ):
        server, _ = listener.accept()
        with server:
            (row,) = broker.rows()
            assert row.client.pid == process.pid
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
            eventually(lambda: broker.rows() == [], "its claim is gone")
            one.claim(server, SERVER)
            answer = one.receive().body
            assert isinstance(answer, wire.Refuse)
            assert answer.reason in (Reason.TOO_LATE, Reason.NOT_VERIFIED)


def test_a_stopped_client_holds_nobody_up(broker: BrokerProcess) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        victim(broker, listener.getsockname()[1]) as process,
    ):
        server, _ = listener.accept()
        with server, libraries(broker.path, 1) as (one,):
            process.send_signal(signal.SIGSTOP)
            one.claim(server, SERVER)
            assert isinstance(one.receive().body, wire.Fuse)
            assert still_serves(broker)
            process.send_signal(signal.SIGCONT)


@contextmanager
def broker_with(descriptors: int, path: Path) -> Iterator[None]:
    """One that may have no more, and ends as it should."""
    command = [*LOOPFUSE, "broker", "--socket", str(path)]
    limited = f"ulimit -n {descriptors}; exec {' '.join(command)}"
    with subprocess.Popen(["sh", "-c", limited], stderr=subprocess.PIPE, text=True) as process:
        try:
            eventually(lambda: answers(path), "it listens", START)
            yield
        finally:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in said
    assert process.returncode == 0


def test_more_callers_than_descriptors_are_turned_away(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    callers: list[FakeLibrary] = []
    with broker_with(64, path):
        try:
            with pytest.raises((EOFError, ConnectionError)):
                for _ in range(64):
                    callers.append(FakeLibrary(path))
            assert len(callers) >= 8
            for caller in callers:
                caller.close()
            callers = []
            eventually(lambda: _answers(path), "it serves on")
        finally:
            for caller in callers:
                caller.close()


def _answers(path: Path) -> bool:
    try:
        FakeLibrary(path).close()
    except (EOFError, ConnectionError):
        return False
    return True


def test_short_of_descriptors_connections_stay_plain(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with broker_with(40, path):
        with tcp_pairs(40) as pairs:
            with libraries(path, 2) as (one, other):
                bodies = []
                for pair in pairs:
                    one.claim(pair.client, CLIENT)
                    other.claim(pair.server, SERVER)
                    bodies += [one.receive().body, other.receive().body]
                fused = [a for a in bodies if isinstance(a, wire.Fuse)]
                refused = [a for a in bodies if isinstance(a, wire.Refuse)]
                assert len(fused) >= 10
                assert {a.reason for a in refused} == {Reason.NO_DESCRIPTORS}
                assert len(fused) + len(refused) == 80


def test_without_any_descriptor_a_lonely_claim_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    with broker_with(40, path):
        with tcp_pairs(40) as pairs, tcp_pair() as lonely:
            with (
                libraries(path, 2) as (one, other),
                closing(FakeLibrary(path, flags=wire.EAGER)) as eager,
            ):
                for pair in pairs:
                    one.claim(pair.client, CLIENT)
                    other.claim(pair.server, SERVER)
                    one.receive()
                    other.receive()
                # A pair takes three for a moment: callers get the last ones.
                with ExitStack() as callers:
                    for _ in range(4):
                        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                        callers.enter_context(caller)
                        caller.connect(os.fspath(path))
                    eager.claim(lonely.client, CLIENT)
                    answer = eager.receive().body
                    assert isinstance(answer, wire.Refuse)
                    assert answer.reason == Reason.NO_COUNTERPART


def test_a_slow_reader_may_use_up_the_descriptors_and_lives(tmp_path: Path) -> None:
    """Messages in its queue hold descriptors; when none are left, further connections
    stay plain, and nobody is dropped."""
    path = tmp_path / "broker.sock"
    count = 450
    with broker_with(600, path):
        with tcp_pairs(count) as pairs:
            with libraries(path, 2) as (slow, other):
                bodies = []
                for pair in pairs:
                    slow.claim(pair.client, CLIENT)
                    other.claim(pair.server, SERVER)
                    bodies.append(other.receive().body)
                bodies += [slow.receive().body for _ in range(count)]
                refused = [a.reason for a in bodies if isinstance(a, wire.Refuse)]
                assert set(refused) == {Reason.NO_DESCRIPTORS}
