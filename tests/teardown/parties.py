"""The two parties of a cell: the one that goes, and the one that stays and looks.

A cell forks both; each takes orders from it, one a line, and answers with one line.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from programs.mapped import has_a_segment
from teardown import calls
from teardown.cells import Cell

BUFFER = 64 << 10
WRITE = 16 << 20
UNREAD = 10
"""Bytes that lie unread at an idle end."""
LEFT = 100
"""Bytes that an end leaves unread when it goes."""
LOOKS, BETWEEN = 6, 0.01
"""A thread that is asleep at so many looks in a row, seconds apart, waits in its call: who waits to
run is not asleep, and who waits for the interpreter gets it between two looks."""
SETTLE = 0.12
"""Until the two ends have heard of each other: many times what loopback takes."""
_ROUNDS = 20
_PATIENCE = 10.0
_LIBC = ctypes.CDLL(None)


def sleeps(thread: threading.Thread) -> bool:
    """Waits until it does. False: it has ended."""
    deadline, row = time.monotonic() + _PATIENCE, 0
    while row < LOOKS and thread.is_alive():
        assert time.monotonic() < deadline, "a thread does not come to sleep"
        time.sleep(BETWEEN)
        try:
            stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
        except FileNotFoundError:
            return False
        row = row + 1 if stat.rpartition(")")[2].split()[0] == "S" else 0
    return thread.is_alive()


class Stayer:
    """The end that the table is about."""

    def __init__(self, sock: socket.socket, cell: Cell) -> None:
        self._sock, self._cell = sock, cell
        self._signals = calls.Signals()
        self._result = ""
        self._thread = threading.Thread(target=self._do, daemon=True)

    def warm(self) -> str:
        """Single bytes there and back, until lazy pairing has had its time."""
        deadline, echo = time.monotonic() + _PATIENCE, b""
        preloaded = "LD_PRELOAD" in os.environ
        while True:
            for _ in range(_ROUNDS):
                self._sock.sendall(b"w")
                echo = self._sock.recv(1)
            both = echo == b"m" and has_a_segment()
            if both or not preloaded or time.monotonic() > deadline:
                break
        for number in range(5 * _ROUNDS):
            self._sock.sendall(b"w" if number < 5 * _ROUNDS - 1 else b"W")
            self._sock.recv(1)
        return ""

    def prepare(self) -> str:
        if self._cell.way.endswith("unread") and self._cell.doing not in ("send", "write"):
            self._sock.sendall(bytes(LEFT))
        if self._cell.doing == "half":
            self._sock.shutdown(socket.SHUT_WR)
        return ""

    def fill(self) -> str:
        """Who will wait in a send sends until not one byte has room, for some time."""
        quiet = 0
        while self._cell.doing == "send" and quiet < 5:
            for count in (BUFFER, 1):
                try:
                    self._sock.send(bytes(count), socket.MSG_DONTWAIT)
                    quiet = 0
                except BlockingIOError:
                    pass
            time.sleep(0.02)
            quiet += 1
        return ""

    def begin(self) -> str:
        self._thread.start()
        return ""

    def in_place(self) -> str:
        """Waits until the call does; what is amiss if it is over: the moment was missed."""
        return "" if self._cell.doing == "idle" or sleeps(self._thread) else "its call is over"

    def _do(self) -> None:
        result = _DOES[self._cell.doing](self._sock)
        self._result = result + self._signals.since()

    def _join(self, seconds: float) -> str:
        self._thread.join(seconds)
        if self._thread.is_alive():
            return "waits"
        # The handler runs in the main thread, at its next step.
        return self._result + self._signals.since()

    def mapped(self) -> str:
        return str(has_a_segment())

    def look(self) -> str:
        return self._join(0.3)

    def look_again(self) -> str:
        return self._join(3.0)

    def shut(self) -> str:
        return shut(self._sock)

    def peek(self) -> str:
        return f"{calls.level(self._sock)}, {calls.size(calls.unread(self._sock))} unread"

    def follow(self) -> str:
        return follow(self._sock, self._signals)


def _waits_in_epoll(sock: socket.socket) -> str:
    with select.epoll() as epoll:
        epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)
        return calls.bits(epoll.poll()[0][1])


_DOES: dict[str, Callable[[socket.socket], str]] = {
    "idle": lambda sock: "",
    "recv": lambda sock: calls.recv(sock, 0),
    "half": lambda sock: calls.recv(sock, 0),
    "send": lambda sock: calls.attempt(lambda: calls.size(sock.send(b"x"))),
    "write": lambda sock: calls.attempt(
        lambda: "whole" if sock.send(bytes(WRITE)) == WRITE else "part"
    ),
    "epoll": _waits_in_epoll,
}


def follow(sock: socket.socket, signals: calls.Signals) -> str:
    """What comes next: poll, two receives, two sends, what error is left, poll."""
    time.sleep(SETTLE)
    said = [f"poll {calls.level(sock)}"]
    for what in (calls.recv, calls.recv, calls.send, calls.send):
        said.append(f"{what.__name__} {what(sock)}{signals.since()}")
        if what is calls.send:
            time.sleep(0.03)
    said.append(f"SO_ERROR {calls.pending_error(sock)}")
    said.append(f"poll {calls.level(sock)}")
    return "; ".join(said)


def shut(sock: socket.socket) -> str:
    """Nothing, or the errno: the other end may have been quicker."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


class Goer:
    """The end that goes."""

    def __init__(self, sock: socket.socket, cell: Cell) -> None:
        self._sock, self._cell = sock, cell
        self._signals = calls.Signals()

    def warm(self) -> str:
        mapped = False
        while self._sock.recv(1) == b"w":
            mapped = mapped or has_a_segment()
            self._sock.sendall(b"m" if mapped else b"w")
        self._sock.sendall(b"W")
        return ""

    def prepare(self) -> str:
        if self._cell.doing == "idle":
            self._sock.sendall(bytes(UNREAD))
        if self._cell.doing == "half" and not self._cell.way.endswith("unread"):
            assert self._sock.recv(1) == b""
        if self._cell.way == "exit-threads":
            # Where bytes wait for it, it must not make room by reading some.
            silent = self._cell.doing in ("send", "write")
            wait = _waits_in_epoll_for_nothing if silent else calls.recv
            for _ in range(2):
                thread = threading.Thread(target=wait, args=(self._sock, 0), daemon=True)
                thread.start()
                sleeps(thread)  # unless its call is over at once
        return ""

    def go(self) -> str:
        return str(_GOES[self._cell.way](self._sock) or "")

    def farewell(self) -> str:
        """Reads what there is, says five bytes."""
        quiet = 0
        while quiet < 10:
            # Shut for reading, it says EOF each time it is empty.
            quiet = quiet + 1 if calls.recv(self._sock) in ("EAGAIN", "EOF") else 0
            time.sleep(0.02 if quiet else 0)
        return calls.attempt(lambda: str(self._sock.send(b"later"))) + self._signals.since()

    def read_all(self) -> str:
        """For a while, whatever comes."""
        deadline = time.monotonic() + 0.25
        while time.monotonic() < deadline:
            calls.recv(self._sock)
            time.sleep(0.001)
        return ""

    def follow(self) -> str:
        return follow(self._sock, self._signals)


def _waits_in_epoll_for_nothing(sock: socket.socket, flags: int) -> None:
    with select.epoll() as epoll:
        epoll.register(sock, 0)
        epoll.poll(_PATIENCE)


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


_GOES: dict[str, Callable[[socket.socket], object]] = {
    "close": socket.socket.close,
    "close-unread": socket.socket.close,
    "close-linger0": _reset,
    "shut-wr": lambda sock: sock.shutdown(socket.SHUT_WR),
    "shut-rd": lambda sock: sock.shutdown(socket.SHUT_RD),
    "shut-rdwr": lambda sock: sock.shutdown(socket.SHUT_RDWR),
    "shut-rdwr-both": shut,
    "kill": lambda sock: os.kill(os.getpid(), 9),
    "kill-unread": lambda sock: os.kill(os.getpid(), 9),
    "exit-threads": lambda sock: _LIBC.exit(0),
    "interface-down": lambda sock: sock.send(b"hello", socket.MSG_DONTWAIT),
}
