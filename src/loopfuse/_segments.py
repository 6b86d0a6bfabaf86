"""The memory that two fused ends share, as the broker sees it.

The only Python module that knows the layout of csrc/segment.h (drawn in
docs/segment.md). The broker never maps a segment: it reads and writes the header with
pread(2) and pwrite(2), so that nothing a client does to the memory can hurt it.
"""

from __future__ import annotations

import enum
import os
import struct
from typing import NamedTuple

from loopfuse._errors import SegmentError
from loopfuse._kernel import sealed_memfd

MAGIC = 0x314553554650304C
VERSION = 3
EXTRA = 4096
"""Bytes beside the two rings."""
HEADER = 2048
SHORT = 1024
"""Bytes of each ring that lie in the header's page."""
LINE = 128
RING_MIN = 4096
RING_MAX = 16 << 20
RING_DEFAULT = 4 << 20
RING_THRIFTY = 128 << 10
"""When memory runs short: enough to be fast, but a program that writes more than this before
anybody reads has to wait where TCP, with its buffers grown, would have taken it."""

_IDENTITY = struct.Struct("=QIIQII")
BROKER_WISH = 0x080
DIRECTION = 0x100
DIRECTION_SIZE = 0x280
TAIL = 0x080
CONSUMER = 0x100
_PRODUCER_LINE = struct.Struct("=QIIQQII")
_CONSUMER_LINE = struct.Struct("=IIII")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_READ = DIRECTION + 2 * DIRECTION_SIZE


class Mark(enum.IntEnum):
    """How far a direction has come; twin of `enum lf_mark`."""

    PLAIN = 0
    FUSED = 1
    ENDED = 2


class Direction(NamedTuple):
    """One direction's lines as they were at one moment. The ends wrote them: claims, not
    facts."""

    head: int
    """Payload bytes ever put into the ring."""
    mark: int
    """A `Mark`, if the producer is honest."""
    fin_hint: int
    tcp_total: int
    end_pos: int
    reason: int
    """Why it ended."""
    tail: int
    """Payload bytes ever taken out of the ring."""
    ready: bool
    """The consumer watches the ring."""
    closed: bool
    """The consumer will never read again."""
    wish: int
    consumer_reason: int


class Segment(NamedTuple):
    """A segment's header as it was at one moment."""

    pair_id: int
    ring_size: int
    broker_wish: int
    to_server: Direction
    to_client: Direction


def check_ring_size(ring_size: int) -> None:
    """Raises SegmentError unless `ring_size` (bytes) can be the size of a ring."""
    if not RING_MIN <= ring_size <= RING_MAX or ring_size & (ring_size - 1):
        raise SegmentError(
            f"a ring of {ring_size} bytes can't be made",
            hint=f"Choose a power of two from {RING_MIN} to {RING_MAX}.",
        )


def make_segment(pair_id: int, ring_size: int) -> int:
    """A new segment's descriptor (the caller closes it): identity filled in, sealed.

    Raises OSError as memfd_create(2) and ftruncate(2) do (EMFILE, ENOMEM, ...).
    """
    identity = _IDENTITY.pack(MAGIC, VERSION, HEADER, pair_id, ring_size, 0)
    return sealed_memfd("loopfuse-segment", EXTRA + 2 * ring_size, identity, SHORT + ring_size)


def memory_of(fd: int) -> int:
    """Bytes of memory that the segment behind `fd` takes. Raises OSError as fstat(2) does."""
    return os.fstat(fd).st_blocks * 512


def header_of(fd: int) -> int:
    """Where the header lies in the segment behind `fd`: in the middle, between the rings."""
    return max(os.fstat(fd).st_size - HEADER, 0) // 2


def read_segment(fd: int) -> Segment:
    """The header of the segment behind `fd`. Raises SegmentError if it is none."""
    data = os.pread(fd, _READ, header_of(fd))
    if len(data) != _READ:
        raise SegmentError("a segment is shorter than its header")
    magic, version, header, pair_id, ring_size, _ = _IDENTITY.unpack_from(data)
    if (magic, version, header) != (MAGIC, VERSION, HEADER):
        raise SegmentError("a segment's header does not start as one")
    (wish,) = _U32.unpack_from(data, BROKER_WISH)
    return Segment(pair_id, ring_size, wish, _direction(data, 0), _direction(data, 1))


def _direction(data: bytes, index: int) -> Direction:
    at = DIRECTION + index * DIRECTION_SIZE
    head, mark, fin_hint, tcp_total, end_pos, reason, _ = _PRODUCER_LINE.unpack_from(data, at)
    (tail,) = _U64.unpack_from(data, at + TAIL)
    ready, closed, wish, why = _CONSUMER_LINE.unpack_from(data, at + CONSUMER)
    return Direction(
        head, mark, fin_hint, tcp_total, end_pos, reason, tail, ready != 0, closed != 0, wish, why
    )


def write_broker_wish(fd: int, reason: int) -> None:
    """Asks both producers to end their directions; they do at their next send."""
    os.pwrite(fd, _U32.pack(reason), header_of(fd) + BROKER_WISH)
