"""Sockets put together to connections: whose addresses mirror each other's in one namespace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from loopfuse._matching import Endpoint, Name, name_of
from loopfuse._sockdiag import State, TcpSocket
from loopfuse._why.holders import Census, Process

_WILDCARDS = (bytes(4), bytes(16))


class End(NamedTuple):
    """One end of a connection, as the kernel and /proc show it."""

    endpoint: Endpoint
    socket: TcpSocket | None
    """None: there is none in this namespace."""
    holders: list[Process]
    """Processes that have it open; empty if there are none, or if they are hidden."""

    @property
    def uid(self) -> int | None:
        """Of its process, else of who made the socket."""
        if self.holders:
            return self.holders[0].uid
        return self.socket.uid if self.socket else None

    @property
    def has_library(self) -> bool:
        return any(process.has_library for process in self.holders)

    @property
    def brokers(self) -> list[str]:
        """The sockets of the brokers that its processes go by."""
        return [one.broker for one in self.holders if one.has_library and one.broker]


class Link(NamedTuple):
    """One connection. Which end is the server's is known from who listens; where nobody does
    any more it is taken to be the one with the lower port, unless the broker knows better."""

    namespace: str | None
    """The network namespace; None: that of this process."""
    client: End
    server: End

    @property
    def ends(self) -> tuple[End, End]:
        return self.client, self.server

    def concerns_user(self, uid: int) -> bool:
        return any(end.uid == uid for end in self.ends)


def brokers_of(link: Link) -> list[str]:
    """The brokers its programs go by, as far as that is known."""
    return list(dict.fromkeys(path for end in link.ends for path in end.brokers))


class Listeners:
    """Where somebody listens, in one namespace."""

    def __init__(self, sockets: Iterable[TcpSocket]) -> None:
        self._sockets = [one for one in sockets if one.state == State.LISTEN]
        self._ends = {one.local for one in self._sockets}
        self._anywhere = {one.local.port for one in self._sockets if one.local.addr in _WILDCARDS}

    def __contains__(self, end: Endpoint) -> bool:
        return end in self._ends or end.port in self._anywhere

    def at_port(self, port: int) -> list[TcpSocket]:
        return [one for one in self._sockets if one.local.port == port]


def links_of(namespace: str | None, sockets: list[TcpSocket], census: Census) -> Iterator[Link]:
    """Every connection in the table of one namespace."""
    listeners = Listeners(sockets)
    named: dict[Name, dict[Endpoint, TcpSocket]] = {}
    for one in sockets:
        if one.state != State.LISTEN:
            named.setdefault(name_of(0, one.local, one.remote), {})[one.local] = one
    for name, found in named.items():
        server = _server_of(name, listeners)
        ends = [_end(one, found.get(one), census) for one in (name.other(server), server)]
        yield Link(namespace, *ends)


def _server_of(name: Name, listeners: Listeners) -> Endpoint:
    listening = [end for end in (name.low, name.high) if end in listeners]
    if len(listening) == 1:
        return listening[0]
    return min(name.low, name.high, key=lambda end: end.port)


def _end(endpoint: Endpoint, found: TcpSocket | None, census: Census) -> End:
    return End(endpoint, found, census.holders(found.inode) if found and found.inode else [])
