"""The binary messages between the preloaded library and the broker.

Twin of csrc/wire.h, and the only Python module that knows the protocol's bytes;
docs/protocol.md describes it. One message is one SOCK_SEQPACKET packet in native byte
order.
"""

from __future__ import annotations

import enum
import socket
import struct
from typing import NamedTuple

from loopfuse._errors import WireError

MAGIC = 0x3157464C
VERSION = 1
MAX_PACKET = 128

_HEAD = struct.Struct("=IHH")
_TWO = struct.Struct("=IHHII")
_CLAIM = struct.Struct("=IHHQQQHHHH16s16sII")
_FUSE = struct.Struct("=IHHQQIIII")
_REFUSE = struct.Struct("=IHHQII")
_CLOSED = struct.Struct("=IHHQQ")
_TAP_ASK = struct.Struct("=IHHQ")


class Type(enum.IntEnum):
    """Twin of `enum lf_wire_type`."""

    HELLO = 1
    WELCOME = 2
    CLAIM = 3
    FUSE = 4
    REFUSE = 5
    DECLINE = 6
    CLOSED = 7
    TAP = 8
    TAP_ASK = 9


class Side(enum.IntEnum):
    """Which end of a connection; the client is the one that called connect(2)."""

    CLIENT = 0
    SERVER = 1


EAGER = 1
GUEST = 2
"""A flag of HELLO: the library's first payload bytes wait for the broker's answer."""


class Hello(NamedTuple):
    """A library introduces itself."""

    flags: int
    """`EAGER`; `GUEST`: is, or starts, programs that will claim: stay until this process ends."""
    pid: int
    """What the sender believes to be; SO_PEERCRED is what counts."""


class Claim(NamedTuple):
    """One end of a connection wants to be fused, or (DECLINE) says that it never will."""

    declined: bool
    claim_id: int
    cookie: int
    netns_cookie: int
    family: int
    side: int
    local_port: int
    remote_port: int
    local_addr: bytes
    remote_addr: bytes
    reason: int
    limit: int
    """Greatest number of unread bytes towards this end, 0: the ring's size."""


class Closed(NamedTuple):
    """A hint that one end of a pair is gone."""

    pair_id: int
    cookie: int


class TapAsk(NamedTuple):
    """A library sees that a pair is tapped, but knows no capture ring for it."""

    pair_id: int


class Welcome(NamedTuple):
    """The broker's answer to HELLO; brings the mailbox."""

    mailbox_size: int


class Fuse(NamedTuple):
    """The broker's yes; brings the segment and the doorbell."""

    claim_id: int
    pair_id: int
    side: int
    ring_size: int
    limit_out: int


class Refuse(NamedTuple):
    """The broker's no."""

    claim_id: int
    reason: int


class TapRing(NamedTuple):
    """Where the sends of connections with this bit are to be recorded; brings the capture ring."""

    slot: int
    """Number of the bit."""
    cells: int


FromLibrary = Hello | Claim | Closed | TapAsk
FromBroker = Welcome | Fuse | Refuse | TapRing

_SIZES = {
    Type.HELLO: _TWO.size,
    Type.WELCOME: _TWO.size,
    Type.CLAIM: _CLAIM.size,
    Type.FUSE: _FUSE.size,
    Type.REFUSE: _REFUSE.size,
    Type.DECLINE: _CLAIM.size,
    Type.CLOSED: _CLOSED.size,
    Type.TAP: _TWO.size,
    Type.TAP_ASK: _TAP_ASK.size,
}
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _type_of(packet: bytes) -> int:
    if len(packet) < _HEAD.size:
        raise WireError(f"a packet of {len(packet)} bytes is too short for a head")
    magic, version, kind = _HEAD.unpack_from(packet)
    if magic != MAGIC:
        raise WireError(f"a packet starts with {magic:#010x}, not with the protocol's magic")
    if version != VERSION:
        raise WireError(
            f"a packet is of protocol version {version}, not {VERSION}",
            hint="Use the library and the broker of the same loopfuse version.",
        )
    if _SIZES.get(kind) != len(packet):
        raise WireError(f"a packet of type {kind} has {len(packet)} bytes")
    return int(kind)


def parse_from_library(packet: bytes) -> FromLibrary:
    """What a library may say to a broker. Raises WireError for everything else."""
    kind = _type_of(packet)
    if kind == Type.CLAIM or kind == Type.DECLINE:
        fields = _CLAIM.unpack(packet)
        claim = Claim(kind == Type.DECLINE, *fields[3:])
        if claim.family not in _FAMILIES or claim.side > Side.SERVER:
            raise WireError(f"a claim names family {claim.family} and side {claim.side}")
        return claim
    if kind == Type.CLOSED:
        return Closed(*_CLOSED.unpack(packet)[3:])
    if kind == Type.TAP_ASK:
        return TapAsk(*_TAP_ASK.unpack(packet)[3:])
    if kind == Type.HELLO:
        return Hello(*_TWO.unpack(packet)[3:])
    raise WireError(f"a library sent a message of type {kind}, which only brokers send")


def parse_from_broker(packet: bytes) -> FromBroker:
    """What a broker may say to a library. Raises WireError for everything else."""
    kind = _type_of(packet)
    if kind == Type.FUSE:
        return Fuse(*_FUSE.unpack(packet)[3:8])
    if kind == Type.REFUSE:
        return Refuse(*_REFUSE.unpack(packet)[3:5])
    if kind == Type.WELCOME:
        return Welcome(_TWO.unpack(packet)[3])
    if kind == Type.TAP:
        return TapRing(*_TWO.unpack(packet)[3:])
    raise WireError(f"a broker sent a message of type {kind}, which only libraries send")


def pack_hello(message: Hello) -> bytes:
    return _TWO.pack(MAGIC, VERSION, Type.HELLO, *message)


def pack_claim(message: Claim) -> bytes:
    kind = Type.DECLINE if message.declined else Type.CLAIM
    return _CLAIM.pack(MAGIC, VERSION, kind, *message[1:])


def pack_closed(message: Closed) -> bytes:
    return _CLOSED.pack(MAGIC, VERSION, Type.CLOSED, *message)


def pack_welcome(message: Welcome) -> bytes:
    return _TWO.pack(MAGIC, VERSION, Type.WELCOME, *message, 0)


def pack_fuse(message: Fuse) -> bytes:
    return _FUSE.pack(MAGIC, VERSION, Type.FUSE, *message, 0)


def pack_refuse(message: Refuse) -> bytes:
    return _REFUSE.pack(MAGIC, VERSION, Type.REFUSE, *message, 0)


def pack_tap(message: TapRing) -> bytes:
    return _TWO.pack(MAGIC, VERSION, Type.TAP, *message)


def pack_tap_ask(message: TapAsk) -> bytes:
    return _TAP_ASK.pack(MAGIC, VERSION, Type.TAP_ASK, *message)
