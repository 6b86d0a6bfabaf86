"""What the kernel knows of TCP sockets: a small reader of sock_diag(7) (inet_diag).

A request is answered while it is being sent, so no call here ever waits. An exact
lookup goes through the kernel's hash table and costs microseconds however many sockets
there are; a dump walks them all.

Facts the callers depend on:

- An exact lookup finds a socket by its addresses, whichever family the socket is of: an
  IPv4 lookup finds the IPv6 socket with the IPv4-mapped address.
- Where no connection fits, the kernel offers a listener; `lookup` does not.
- A socket bound to a device (SO_BINDTODEVICE, or a link-local address) is found only
  with that device's index.
- The inode is 0 while no process holds the socket: before accept(2), after close(2).
- Of a socket's options it tells some since Linux 5.13 (INET_DIAG_SOCKOPT), IP_TRANSPARENT among
  them, which a socket from accept(2) has from its listener.
"""

from __future__ import annotations

import enum
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from loopfuse._errors import SockDiagError
from loopfuse._matching import Endpoint, endpoint

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 0x01
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NO_COOKIE = 0xFFFFFFFFFFFFFFFF
_BUFFER = 65536
_NOWHERE = Endpoint(bytes(16), 0)

_NLMSG = struct.Struct("=IHHII")
# struct nlmsghdr and struct inet_diag_req_v2; ports and addresses in network order, the
# cookie as two words, the low one first.
_REQUEST = struct.Struct("=IHHIIBBBBI2s2s16s16sIII")
# struct inet_diag_msg
_ANSWER = struct.Struct("=BBBB2s2s16s16sIIIIIIII")
_ERROR = struct.Struct("=i")
_ATTRIBUTE = struct.Struct("=HH")
_INET_DIAG_SOCKOPT = 22
# The sixth bit of struct inet_diag_sockopt's first byte, in the order of the machine's bit fields.
_TRANSPARENT = 0x20 if sys.byteorder == "little" else 0x04
_Info = TypeVar("_Info")


class State(enum.IntEnum):
    """TCP states as the kernel numbers them (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


_ALL_STATES = 0xFFFFFFFF
_HELD_STATES = sum(
    1 << state
    for state in (
        State.ESTABLISHED,
        State.SYN_SENT,
        State.FIN_WAIT1,
        State.FIN_WAIT2,
        State.CLOSE_WAIT,
        State.LAST_ACK,
        State.CLOSING,
    )
)
_NOT_A_CONNECTION = (State.LISTEN, State.TIME_WAIT, State.CLOSE)


class SocketInfo(NamedTuple):
    """One TCP socket."""

    family: int
    state: int
    """A `State`."""
    interface: int
    """Index of the device it is bound to, 0: none."""
    cookie: int
    """What SO_COOKIE tells its owner."""
    uid: int
    inode: int
    """0: no process holds it."""
    transparent: bool
    """It may have addresses that are not this host's (IP_TRANSPARENT)."""


class TcpSocket(NamedTuple):
    """One TCP socket, with where it leads. IPv4-mapped addresses are IPv4."""

    local: Endpoint
    remote: Endpoint
    state: int
    """A `State`."""
    uid: int
    inode: int
    """0: no process holds it."""


class SockDiag:
    """Looks into one network namespace: the one its maker's thread is in.

    Not thread-safe. Keeps that namespace alive until close().
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self.socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
        self._sequence = 0

    def close(self) -> None:
        self.socket.close()

    def lookup(
        self, local: Endpoint, remote: Endpoint, *, cookie: int | None = None, interface: int = 0
    ) -> SocketInfo | None:
        """The connection with these addresses (and that SO_COOKIE, if one is given); None
        if there is none. Raises SockDiagError if the kernel can't say."""
        self._ask(socket.AF_INET if local.is_ipv4 else socket.AF_INET6, 0, _ALL_STATES,
                  local, remote, interface, _NO_COOKIE if cookie is None else cookie)  # fmt: skip
        answers, _ = self._answers()
        if not answers or answers[0].state in _NOT_A_CONNECTION:
            return None
        # The kernel does not compare a cookie that is all ones.
        if cookie is not None and answers[0].cookie != cookie:
            return None
        return answers[0]

    def listener(self, local: Endpoint, *, interface: int = 0) -> int:
        """The inode of a socket that listens at this address, 0 if there is none. Raises
        SockDiagError if the kernel can't say."""
        self._ask(socket.AF_INET if local.is_ipv4 else socket.AF_INET6, 0, _ALL_STATES,
                  local, _NOWHERE, interface, _NO_COOKIE)  # fmt: skip
        answers, _ = self._answers()
        return answers[0].inode if answers and answers[0].state == State.LISTEN else 0

    def held_cookies(self) -> set[int]:
        """The cookies of all connections that some process holds.

        A walk through a table that changes meanwhile: a socket may be missed, so confirm
        with `lookup` before believing that one is gone.
        """
        return {info.cookie for info in self._dump(_HELD_STATES, _socket_info) if info.inode}

    def sockets(self) -> Iterator[TcpSocket]:
        """All connections and listeners, as they are met in a walk like that of
        `held_cookies`. Raises SockDiagError."""
        return self._dump(_HELD_STATES | 1 << State.LISTEN, _tcp_socket)

    def _dump(self, states: int, make: Callable[[bytes, int, int], _Info]) -> Iterator[_Info]:
        for family in (socket.AF_INET, socket.AF_INET6):
            self._ask(family, _NLM_F_DUMP, states, _NOWHERE, _NOWHERE, 0, _NO_COOKIE)
            done = False
            while not done:
                answers, done = self._packet(make)
                yield from answers

    def _ask(
        self,
        family: int,
        flags: int,
        states: int,
        local: Endpoint,
        remote: Endpoint,
        interface: int,
        cookie: int,
    ) -> None:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        request = _REQUEST.pack(
            _REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | flags, self._sequence, 0,
            family, socket.IPPROTO_TCP, 0, 0, states,
            local.port.to_bytes(2, "big"), remote.port.to_bytes(2, "big"),
            local.addr, remote.addr, interface, cookie & 0xFFFFFFFF, cookie >> 32,
        )  # fmt: skip
        try:
            self.socket.send(request)
        except OSError as error:
            raise SockDiagError(f"sock_diag refused a request: {error.strerror}") from error

    def _answers(self) -> tuple[list[SocketInfo], bool]:
        return self._packet(_socket_info)

    def _packet(self, make: Callable[[bytes, int, int], _Info]) -> tuple[list[_Info], bool]:
        """One packet's worth of answers, and whether they were the last ones. What an earlier
        request was answered that failed to take it in is passed over."""
        while True:
            try:
                data = self.socket.recv(_BUFFER, socket.MSG_DONTWAIT)
            except OSError as error:
                raise SockDiagError(f"sock_diag gave no answer: {error.strerror}") from error
            if self._is_asked_for(data):
                return self._parse(data, make)

    def _is_asked_for(self, data: bytes) -> bool:
        """Is it about the last request? A packet answers no more than one."""
        return len(data) < _NLMSG.size or _NLMSG.unpack_from(data)[3] == self._sequence

    def _parse(
        self, data: bytes, make: Callable[[bytes, int, int], _Info]
    ) -> tuple[list[_Info], bool]:
        answers: list[_Info] = []
        at = 0
        while at + _NLMSG.size <= len(data):
            length, kind, _, sequence, _ = _NLMSG.unpack_from(data, at)
            if sequence == self._sequence:
                if kind == _NLMSG_DONE:
                    return answers, True
                if kind == _NLMSG_ERROR:
                    _raise_unless_absent(data, at + _NLMSG.size)
                    return answers, True
                if kind == _SOCK_DIAG_BY_FAMILY:
                    answers.append(make(data, at + _NLMSG.size, at + length))
            at += (length + 3) & ~3
        return answers, False


def _socket_info(data: bytes, at: int, end: int) -> SocketInfo:
    (family, state, _, _, _, _, _, _, interface, low, high, _, _, _, uid, inode) = (
        _ANSWER.unpack_from(data, at)
    )
    transparent = _is_transparent(data, at + _ANSWER.size, end)
    return SocketInfo(family, state, interface, high << 32 | low, uid, inode, transparent)


def _is_transparent(data: bytes, at: int, end: int) -> bool:
    """From the attributes behind an answer."""
    while at + _ATTRIBUTE.size < end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == _INET_DIAG_SOCKOPT:
            return bool(data[at + _ATTRIBUTE.size] & _TRANSPARENT)
        at += max(length + 3 & ~3, _ATTRIBUTE.size)
    return False


def _tcp_socket(data: bytes, at: int, _end: int) -> TcpSocket:
    (family, state, _, _, local_port, remote_port, local, remote, *_, uid, inode) = (
        _ANSWER.unpack_from(data, at)
    )
    here = endpoint(family, local, int.from_bytes(local_port, "big"))
    there = endpoint(family, remote, int.from_bytes(remote_port, "big"))
    return TcpSocket(here, there, state, uid, inode)


def _raise_unless_absent(data: bytes, at: int) -> None:
    (number,) = _ERROR.unpack_from(data, at)
    if -number not in (errno.ENOENT, errno.ESTALE):
        raise SockDiagError(f"sock_diag answered: {os.strerror(-number)}")
