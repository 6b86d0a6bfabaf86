"""One captured packet. Its payload is real; its headers are what TCP would have sent, had it
sent anything."""

from __future__ import annotations

import enum
import socket
import struct
from typing import NamedTuple

from loopfuse._messages import EndRow, where

_IPV4 = struct.Struct("!BBHHHBBH")
_IPV6 = struct.Struct("!IHBB")
_TCP = struct.Struct("!HHIIHHHH")
_U16 = struct.Struct("!H")
_WINDOW = 0xFFFF
_TTL = 64
_DF = 0x4000  # don't fragment
_PIECE = 1024
# Maximum segment size 65495, then a window scale of 14, the greatest (RFC 7323): nobody is to
# take the peer's receive buffer, which is no part of this, for full.
_SYN_OPTIONS = bytes([2, 4, 0xFF, 0xD7, 3, 3, 14, 0])


class Flags(enum.IntFlag):
    """Of the TCP header (RFC 9293, 3.1)."""

    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    PSH = 0x08
    ACK = 0x10


_SYN = int(Flags.SYN)


class _Way:
    """What all packets in one direction of a connection have alike."""

    def __init__(self, family: str, source: EndRow, destination: EndRow) -> None:
        kind = socket.AF_INET if family == "ipv4" else socket.AF_INET6
        self.is_ipv4 = family == "ipv4"
        self.addresses = socket.inet_pton(kind, source.addr) + socket.inet_pton(
            kind, destination.addr
        )
        self.ports = source.port, destination.port
        # RFC 9293, 3.1: TCP's checksum covers a pseudo header, too.
        self.pseudo_sum = _sum(self.addresses) + _sum(struct.pack("!I", socket.IPPROTO_TCP))
        self.ipv4_sum = _sum(self.ip_header(0, 0)) if self.is_ipv4 else 0

    def ip_header(self, size: int, checksum: int) -> bytes:
        """`size`: of what follows it; the IPv4 header's own checksum."""
        if self.is_ipv4:
            size += 20
            begin = _IPV4.pack(0x45, 0, size, 0, _DF, _TTL, socket.IPPROTO_TCP, checksum)
        else:
            begin = _IPV6.pack(6 << 28, size, socket.IPPROTO_TCP, _TTL)
        return begin + self.addresses


class Tapped:
    """The connection that a packet belongs to."""

    __slots__ = ("_ways", "client", "family", "id", "server")

    id: int
    """The one that `loopfuse ps` shows."""
    family: str
    """`ipv4` or `ipv6`, of the packets."""
    client: EndRow
    server: EndRow

    def __init__(self, id: int, family: str, client: EndRow, server: EndRow) -> None:
        self.id = id
        self.family = family
        self.client = client
        self.server = server
        self._ways = (_Way(family, client, server), _Way(family, server, client))

    def way(self, to_server: bool) -> _Way:
        return self._ways[not to_server]


class Packet(NamedTuple):
    """What one end of a fused connection sent at one moment, up to 32768 bytes of it; or SYN,
    FIN, RST or an acknowledgement, made up where `comment` says so."""

    time: int
    """CLOCK_REALTIME in ns, taken by the sender when it sent."""
    connection: Tapped
    to_server: bool
    flags: Flags
    seq: int
    """1 is the first byte that went through the ring in this direction; not cut to 32 bits."""
    ack: int
    """The next byte of the other direction that the capture has not seen."""
    length: int
    """Of the payload, when it was sent."""
    payload: bytes
    """The first bytes of it: all, unless the tap cuts packets off."""
    pid: int | None
    """The process that sent it, if one did."""
    comment: str = ""

    @property
    def source(self) -> EndRow:
        """The sending end, as it was when the connection was fused."""
        return self.connection.client if self.to_server else self.connection.server

    @property
    def destination(self) -> EndRow:
        return self.connection.server if self.to_server else self.connection.client

    def text(self) -> str:
        """One line without payload: ends, flags, length."""
        return f"{_end_text(self.source)} > {_end_text(self.destination)} {self.what()}"

    def what(self) -> str:
        """`FIN`, `SYN+ACK` and so on, or `length N`."""
        if self.length:
            return f"length {self.length}"
        names = [flag.name or "" for flag in Flags if flag in self.flags and flag != Flags.PSH]
        return "+".join(names)

    def to_ip(self) -> bytes:
        """The packet, from its IP header on, with right checksums."""
        way = self.connection.way(self.to_server)
        flags = int(self.flags)  # arithmetic with a Flags takes as long as all the rest
        options = _SYN_OPTIONS if flags & _SYN else b""
        size = _TCP.size + len(options) + self.length
        offset_and_flags = (_TCP.size + len(options)) << 10 | flags
        seq, ack = self.seq & 0xFFFFFFFF, self.ack & 0xFFFFFFFF
        header = _TCP.pack(*way.ports, seq, ack, offset_and_flags, _WINDOW, 0, 0) + options
        # What was cut off is not known; readers do not check what is not all there.
        if len(self.payload) == self.length:
            total = way.pseudo_sum + _swapped(size) + _sum(header) + _sum(self.payload)
            header = header[:16] + _checksum(total) + header[18:]
        ip_checksum = 0
        if way.is_ipv4:
            # The size is added to what the template was made with, 20.
            (ip_checksum,) = _U16.unpack(_checksum(way.ipv4_sum + _swapped(size)))
        return way.ip_header(size, ip_checksum) + header + self.payload


def _sum(data: bytes) -> int:
    """Congruent, modulo 65535, to the sum of its little-endian 16-bit words (RFC 1071; byte order
    does not matter until the end). As a number to the base 65536, whose powers are all 1 modulo
    65535, each piece is congruent to the sum of its digits."""
    if len(data) <= _PIECE:
        return int.from_bytes(data, "little")
    pieces = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]
    return sum([int.from_bytes(piece, "little") for piece in pieces])


def _swapped(number: int) -> int:
    """A 16-bit word in network order, read as little-endian."""
    return (number & 0xFF) << 8 | number >> 8


def _checksum(total: int) -> bytes:
    """The Internet checksum of words with this sum, as it goes into a header. A sum of words that
    are not all 0 is never 0 itself, but may be 65535, modulo which it is."""
    return (0xFFFF - (total % 0xFFFF or 0xFFFF)).to_bytes(2, "little")


def _end_text(end: EndRow) -> str:
    place = where(end)
    return place if end.pid is None else f"{printable(end.comm or '?')}/{end.pid} {place}"


def printable(name: str) -> str:
    """A process's name, which may be anything, as a terminal may see it."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)
