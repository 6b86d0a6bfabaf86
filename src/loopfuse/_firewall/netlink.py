"""Asking the kernel over netlink(7): a request, all its answers, their attributes.

A request is answered while it is being sent, so no call here waits for anybody.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NLM_F_REQUEST = 0x01
NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x10
_NLMSG_NOOP = 1
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_BUFFER = 1 << 18
_TRIES = 5

Attributes = dict[int, bytes]


class Answer(NamedTuple):
    """One message; `body` begins after the netlink header."""

    kind: int
    body: bytes


class Netlink:
    """A socket that asks in the network namespace in which it was made. Not thread-safe."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
        )
        self._socket.settimeout(5.0)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes, *, dump: bool = True) -> list[Answer]:
        """The answers to one request. Raises OSError with the kernel's errno. A dump that
        was interrupted by a change is asked for again, a few times."""
        for _ in range(_TRIES):
            answers, whole = self._ask_once(kind, body, dump)
            if whole:
                break
        return answers

    def _ask_once(self, kind: int, body: bytes, dump: bool) -> tuple[list[Answer], bool]:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        flags = NLM_F_REQUEST | (NLM_F_DUMP if dump else 0)
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, flags, self._sequence, 0) + body)
        answers: list[Answer] = []
        whole = True
        while True:
            data = self._socket.recv(_BUFFER)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind_of, flags_of, sequence, _ = _HEADER.unpack_from(data, at)
                end = at + max(length, _HEADER.size)
                if sequence == self._sequence:
                    whole = whole and not flags_of & _NLM_F_DUMP_INTR
                    if kind_of == _NLMSG_DONE:
                        return answers, whole
                    if kind_of == _NLMSG_ERROR:
                        _raise_if_refused(data, at + _HEADER.size)
                        return answers, whole
                    if kind_of != _NLMSG_NOOP:
                        answers.append(Answer(kind_of, data[at + _HEADER.size : end]))
                        if not dump:
                            return answers, whole
                at = (end + 3) & ~3


def _raise_if_refused(data: bytes, at: int) -> None:
    (number,) = _ERROR.unpack_from(data, at)
    if number:
        raise OSError(-number, os.strerror(-number))


class Listener:
    """Hears that something has changed, in the namespace in which it was made."""

    def __init__(self, protocol: int, groups: tuple[int, ...]) -> None:
        """Raises OSError (EPERM: nftables' groups need CAP_NET_ADMIN)."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, protocol)
        try:
            # Without an address of its own a socket is taken for the sender, which hears nothing.
            self._socket.bind((0, 0))
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def heard(self) -> bool:
        """Has there been anything since the last call? Forgets it."""
        anything = False
        while True:
            try:
                anything = bool(self._socket.recv(_BUFFER)) or anything
            except BlockingIOError:
                return anything
            except OSError as error:
                anything = True  # ENOBUFS: so much that some of it was lost
                if error.errno != errno.ENOBUFS:
                    return anything


def attributes(data: bytes, at: int = 0) -> Attributes:
    """The attributes that begin at `at`, by type; of several of one type the last."""
    return dict(attribute_list(data, at))


def attribute_list(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """The same in their order, repeated ones too."""
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def text(value: bytes) -> str:
    """A string attribute."""
    return value.rstrip(b"\0").decode(errors="replace")


def number(value: bytes | None, default: int = 0) -> int:
    """A number in network order, as nftables has them."""
    return default if value is None else int.from_bytes(value, "big")
