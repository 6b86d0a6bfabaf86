"""Which two claims are the two ends of one connection. Pure: nothing here does I/O.

A TCP connection inside one network namespace has two sockets whose addresses mirror
each other. IPv4-mapped IPv6 addresses (RFC 4291, 2.5.5.2) count as IPv4, since a client
of one family may well talk to a server socket of the other.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

from loopfuse._wire import Claim, Side

_V4_MAPPED = bytes(10) + b"\xff\xff"


class Endpoint(NamedTuple):
    """Address (4 or 16 bytes, network order) and port of one end."""

    addr: bytes
    port: int

    @property
    def is_ipv4(self) -> bool:
        return len(self.addr) == 4

    def text(self) -> str:
        """The address as a person writes it, without the port."""
        return socket.inet_ntop(socket.AF_INET if self.is_ipv4 else socket.AF_INET6, self.addr)


class Name(NamedTuple):
    """A connection's name, the same whichever end tells it."""

    netns_cookie: int
    low: Endpoint
    high: Endpoint

    def other(self, end: Endpoint) -> Endpoint:
        """The end that this one is connected to."""
        return self.high if end == self.low else self.low


def endpoint(family: int, addr: bytes, port: int) -> Endpoint:
    """An endpoint from a claim's fields; IPv4-mapped addresses become IPv4."""
    if family == socket.AF_INET:
        return Endpoint(addr[:4], port)
    if addr.startswith(_V4_MAPPED):
        return Endpoint(addr[12:], port)
    return Endpoint(addr, port)


def local_end(claim: Claim) -> Endpoint:
    """The end that makes the claim."""
    return endpoint(claim.family, claim.local_addr, claim.local_port)


def remote_end(claim: Claim) -> Endpoint:
    """The end that it says it is connected to."""
    return endpoint(claim.family, claim.remote_addr, claim.remote_port)


def name_of(netns_cookie: int, one: Endpoint, other: Endpoint) -> Name:
    """The name of the connection between two endpoints, in either order."""
    if one <= other:
        return Name(netns_cookie, one, other)
    return Name(netns_cookie, other, one)


def client_end(one: tuple[Endpoint, int], other: tuple[Endpoint, int]) -> Endpoint:
    """Which of two ends, each with the side it claims, is the client.

    With simultaneous open (RFC 9293, 3.5) both called connect(2): then it is the lower
    of the two, by address and port. The same rule settles two servers, which only a
    descriptor handed to a stranger can bring about.
    """
    if one[1] != other[1]:
        return one[0] if one[1] == Side.CLIENT else other[0]
    return min(one[0], other[0])
