"""What a party says of one call: a word or two, without what timing alone decides."""

from __future__ import annotations

import errno
import select
import signal
import socket
import struct
import termios
from collections.abc import Callable
from fcntl import ioctl

SMALL = 1000
"""Byte counts up to here are the scenario's own; larger ones depend on buffers."""

_BITS = {
    select.POLLIN: "IN",
    select.POLLPRI: "PRI",
    select.POLLOUT: "OUT",
    select.POLLERR: "ERR",
    select.POLLHUP: "HUP",
    select.POLLRDHUP: "RDHUP",
}


class Signals:
    """Counts SIGPIPE."""

    def __init__(self) -> None:
        self._seen = 0
        signal.signal(signal.SIGPIPE, self._note)

    def _note(self, number: int, frame: object) -> None:
        self._seen += 1

    def since(self) -> str:
        """What to add to the result of a call."""
        seen, self._seen = self._seen, 0
        return "+SIGPIPE" * seen


def attempt(call: Callable[[], str]) -> str:
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def size(count: int) -> str:
    return str(count) if count <= SMALL else "many"


def bits(mask: int) -> str:
    return "|".join(name for bit, name in _BITS.items() if mask & bit) or "nothing"


def recv(sock: socket.socket, flags: int = socket.MSG_DONTWAIT) -> str:
    """Up to 64 KiB."""
    return attempt(lambda: size(len(data)) if (data := sock.recv(1 << 16, flags)) else "EOF")


def send(sock: socket.socket) -> str:
    """One byte."""
    return attempt(lambda: size(sock.send(b"x", socket.MSG_DONTWAIT)))


def level(sock: socket.socket) -> str:
    poller = select.poll()
    poller.register(sock, sum(_BITS))
    return next((bits(mask) for _, mask in poller.poll(0)), "nothing")


def pending_error(sock: socket.socket) -> str:
    error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return errno.errorcode[error] if error else "0"


def unread(sock: socket.socket) -> int:
    answer = ioctl(sock, termios.FIONREAD, struct.pack("i", 0))
    count: int = struct.unpack("i", answer)[0]
    return count
