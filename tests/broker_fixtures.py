"""A broker of one's own, and a fake library that speaks the wire protocol to it.

PYTEST_DONT_REWRITE: tests import it by name as well as get its fixtures.
"""

from __future__ import annotations

import array
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from commands import LOOPFUSE
from loopfuse import _wire as wire
from loopfuse._broker_start import connect
from loopfuse._control import fetch_rows
from loopfuse._errors import NoBrokerError
from loopfuse._kernel import netns_cookie, socket_cookie
from loopfuse._messages import Row

PATIENCE = 20.0
START = 60.0
"""For a broker: Python's own start takes its while on a busy machine."""


def eventually(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Waits until `condition` holds; fails the test if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def answers(path: Path) -> bool:
    """Is there somebody behind the socket, not just the file that a killed broker left?"""
    sock = connect(path, 1.0)
    if sock is not None:
        sock.close()
    return sock is not None


class BrokerProcess:
    """`loopfuse broker`, as a child; `prefix`: words to put before the command."""

    def __init__(self, path: Path, *options: str, prefix: Sequence[str] = ()) -> None:
        self.path = path
        command = [*prefix, *LOOPFUSE, "broker", "--socket", str(path)]
        command += options
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            eventually(self._is_there_or_over, "it listens", START)
        except AssertionError:
            self.kill()
            raise

    def _is_there_or_over(self) -> bool:
        return answers(self.path) or self.process.poll() is not None

    @property
    def pid(self) -> int:
        return self.process.pid

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def rows(self) -> list[Row]:
        return fetch_rows(self.path)

    def stop(self) -> tuple[int, str]:
        """Ends it with SIGTERM; its exit code and what it wrote."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            _, said = self.process.communicate(timeout=PATIENCE)
        finally:
            self.process.kill()
        return self.process.returncode, said

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of the test's own. Whatever is done to it, it must not write a traceback,
    and it must leave in peace."""
    process = BrokerProcess(tmp_path / "broker.sock", "--log-level", "debug")
    yield process
    killed = process.process.poll() == -signal.SIGKILL
    code, said = process.stop()
    assert "Traceback" not in said, said
    assert code == 0 or killed, said


def no_broker_at(path: Path) -> bool:
    try:
        fetch_rows(path)
    except NoBrokerError:
        return True
    return False


class Message:
    """What the broker sent, and the descriptors that came with it."""

    def __init__(self, body: wire.FromBroker, fds: list[int]) -> None:
        self.body = body
        self.fds = fds


class FakeLibrary:
    """Says what the preloaded library says, or whatever else a test wants said."""

    def __init__(self, path: Path, *, greet: bool = True, flags: int = 0) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(os.fspath(path))
        self.mailbox: mmap.mmap | None = None
        self._claims = 0
        self._fds: list[int] = []
        if greet:
            self.greet(flags)

    def greet(self, flags: int = 0) -> None:
        self.send(wire.pack_hello(wire.Hello(flags, os.getpid())))
        welcome = self.receive()
        assert isinstance(welcome.body, wire.Welcome)
        (mailbox,) = welcome.fds
        self.mailbox = mmap.mmap(mailbox, welcome.body.mailbox_size, prot=mmap.PROT_READ)

    def send(self, packet: bytes) -> None:
        self.socket.send(packet)

    def receive(self) -> Message:
        """The next message; EOFError if the broker hung up."""
        room = socket.CMSG_SPACE(4 * 4)
        packet, ancillary, _, _ = self.socket.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data)
        self._fds += fds
        if not packet:
            raise EOFError
        return Message(wire.parse_from_broker(packet), list(fds))

    def is_dropped(self) -> bool:
        """Waits for the broker to hang up; False if it says something instead."""
        try:
            self.receive()
        except (EOFError, ConnectionResetError):
            return True
        return False

    def is_silent(self) -> bool:
        """Has the broker nothing to say?"""
        self.socket.setblocking(False)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)

    def mail(self) -> int:
        """How many messages the mailbox says were sent."""
        assert self.mailbox is not None
        return int.from_bytes(self.mailbox[:4], sys.byteorder)

    def claim(self, sock: socket.socket, side: wire.Side, **changes: Any) -> int:
        """Claims one end; `changes` replace fields, to lie with. Returns the claim id."""
        self._claims += 1
        claim = claim_of(sock, side, self._claims)._replace(**changes)
        self.send(wire.pack_claim(claim))
        return claim.claim_id

    def settle(self) -> None:
        """Returns when the broker has taken in all that was sent before."""
        self.send(b'{"request":"nonsense"}')
        assert b"error" in self.socket.recv(4096)

    def close(self) -> None:
        self.socket.close()
        if self.mailbox is not None:
            self.mailbox.close()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


def claim_of(sock: socket.socket, side: wire.Side, claim_id: int = 1) -> wire.Claim:
    """The truth about one end."""
    local, remote = sock.getsockname(), sock.getpeername()
    return wire.Claim(
        declined=False,
        claim_id=claim_id,
        cookie=socket_cookie(sock),
        netns_cookie=netns_cookie(sock),
        family=sock.family,
        side=side,
        local_port=local[1],
        remote_port=remote[1],
        local_addr=_packed(sock.family, local[0]),
        remote_addr=_packed(sock.family, remote[0]),
        reason=0,
        limit=0,
    )


def _packed(family: int, addr: str) -> bytes:
    return socket.inet_pton(family, addr.partition("%")[0]).ljust(16, b"\0")


@contextmanager
def libraries(path: Path, count: int) -> Iterator[list[FakeLibrary]]:
    """So many fake libraries, greeted; closed at the end."""
    made: list[FakeLibrary] = []
    try:
        for _ in range(count):
            made.append(FakeLibrary(path))
        yield made
    finally:
        for library in made:
            library.close()


class TcpPair:
    """Both ends of a TCP connection over loopback, and its listener."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server

    def close(self) -> None:
        self.client.close()
        self.server.close()


def connect_pair(kind: str = "ipv4") -> TcpPair:
    """A connection: `ipv4`, `ipv6`, or `mapped` (an IPv4 client of an IPv6 listener)."""
    family = socket.AF_INET if kind == "ipv4" else socket.AF_INET6
    address = {"ipv4": "127.0.0.1", "ipv6": "::1", "mapped": "::"}[kind]
    with socket.socket(family) as listener:
        if kind == "mapped":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        target = "::1" if kind == "ipv6" else "127.0.0.1"
        client = socket.create_connection((target, port), timeout=PATIENCE)
        server, _ = listener.accept()
    return TcpPair(client, server)


@contextmanager
def tcp_pair(kind: str = "ipv4") -> Iterator[TcpPair]:
    """The same, closed at the end."""
    pair = connect_pair(kind)
    try:
        yield pair
    finally:
        pair.close()


@contextmanager
def tcp_pairs(count: int) -> Iterator[list[TcpPair]]:
    """So many of them."""
    with ExitStack() as stack:
        yield [stack.enter_context(tcp_pair()) for _ in range(count)]
