"""Capture files in the pcapng format (draft-ietf-opsawg-pcapng), as Wireshark reads them.

One section, one interface of raw IP packets with times in ns. Written here rather than with a
library: docs/libraries.md.
"""

from __future__ import annotations

import platform
import struct
from typing import NamedTuple

from loopfuse import __version__
from loopfuse._tap.packet import Packet

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_STATISTICS = 5
_PACKET = 6
_BYTE_ORDER = 0x1A2B3C4D
_RAW_IP = 101
_END, _COMMENT = 0, 1

_HEAD = struct.Struct("=II")
_TAIL = struct.Struct("=I")
_OPTION = struct.Struct("=HH")
_U64 = struct.Struct("=Q")
_PACKET_HEAD = struct.Struct("=IIIIIII")
_ALL = 0xFFFFFFFF


class Totals(NamedTuple):
    """What is said at the end."""

    begin: int
    """CLOCK_REALTIME, ns."""
    end: int
    received: int
    """Packets before the filter."""
    dropped: int
    """Packets that the capture lost."""
    comment: str


def begin(snap: int, filter_text: str | None) -> bytes:
    """How a file starts."""
    user = f"loopfuse tap {__version__}"
    kernel = f"{platform.system()} {platform.release()}"
    section = struct.pack("=IHHq", _BYTE_ORDER, 1, 0, -1)
    section += _option(3, kernel.encode()) + _option(4, user.encode()) + _option(_END)
    interface = struct.pack("=HHI", _RAW_IP, 0, snap)
    interface += _option(2, b"loopfuse") + _option(9, b"\x09") + _option(12, kernel.encode())
    interface += _option(3, b"payload of TCP connections that loopfuse has fused")
    if filter_text:
        interface += _option(11, b"\0" + filter_text.encode())
    return _block(_SECTION, section) + _block(_INTERFACE, interface + _option(_END))


def packet(one: Packet) -> bytes:
    """One packet's block."""
    data = one.to_ip()
    original = len(data) - len(one.payload) + one.length
    pad = -len(data) & 3
    options = b""
    if one.comment:
        options = _option(_COMMENT, one.comment.encode(errors="replace")) + _option(_END)
    total = _PACKET_HEAD.size + len(data) + pad + len(options) + _TAIL.size
    head = _PACKET_HEAD.pack(
        _PACKET,
        total,
        0,
        one.time >> 32 & _ALL,
        one.time & _ALL,
        len(data),
        original,
    )
    return b"".join((head, data, bytes(pad), options, _TAIL.pack(total)))


def end(totals: Totals) -> bytes:
    """How a file ends: the interface's statistics."""
    body = struct.pack("=III", 0, totals.end >> 32 & _ALL, totals.end & _ALL)
    body += _option(_COMMENT, totals.comment.encode())
    for code, moment in ((2, totals.begin), (3, totals.end)):
        body += _option(code, struct.pack("=II", moment >> 32 & _ALL, moment & _ALL))
    body += _option(4, _U64.pack(totals.received)) + _option(5, _U64.pack(totals.dropped))
    return _block(_STATISTICS, body + _option(_END))


def _option(code: int, value: bytes = b"") -> bytes:
    return _OPTION.pack(code, len(value)) + value + bytes(-len(value) & 3)


def _block(kind: int, body: bytes) -> bytes:
    total = _HEAD.size + len(body) + _TAIL.size
    return _HEAD.pack(kind, total) + body + _TAIL.pack(total)
