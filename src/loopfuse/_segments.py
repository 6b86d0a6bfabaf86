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
VERSION = 9
EXTRA = 4096
"""Bytes beside the two rings."""
HEADER = 2048
SHORT = 1024
"""Bytes of each ring that lie in the header's page."""
LINE = 128
RING_MIN = 4096
RING_MAX = 16 << 20
RING_DEFAULT = 4 << 20
TAPS = 8
"""At most so many taps see a connection at a time."""
RING_THRIFTY = 128 << 10
"""When memory runs short: enough to be fast, but a program that writes more than this before
anybody reads has to wait where TCP, with its buffers grown, would have taken it."""

_IDENTITY = struct.Struct("=QIIQII")
BROKER_WISH = 0x080
DIRECTION = 0x100
DIRECTION_SIZE = 0x300
TAIL = 0x080
CONSUMER = 0x100
READER = 0x180
WRITER = 0x200
ARRIVALS = 0x280
WAKE_BOUNDS = (5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 1e-3, 10e-3)
"""Seconds: the upper ends of all classes of wake-ups but the last."""
_PRODUCER_LINE = struct.Struct("=QIIQQII")
_MESSAGES = 0x30
_PRODUCER_WAITS = 0x40
_CONSUMER_WAITS = TAIL + 0x08
_WAITS = struct.Struct("=QQQQ8I")
_CONSUMER_LINE = struct.Struct("=IIII")
_ARMED_LINE = struct.Struct("=IIQ")
_COPIED = ARRIVALS + 0x40
_TCP_TOTAL = ARRIVALS + 0x50
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
_READ = DIRECTION + 2 * DIRECTION_SIZE


class Mark(enum.IntEnum):
    """How far a direction has come; twin of `enum lf_mark`."""

    PLAIN = 0
    FUSED = 1
    ENDED = 2


class Waits(NamedTuple):
    """How one end has waited in one direction."""

    armed: bool = False
    """It sleeps, or has been woken by something else than its doorbell since it did."""
    below: int = 0
    """Waiting for room: it can go on once no more bytes are unread than this."""
    rings: int = 0
    """Doorbells that the other end rang for it."""
    spins_paid: int = 0
    spins_vain: int = 0
    sleeps: int = 0
    wake_ns: int = 0
    """All of its wake-ups, each from the ring of the doorbell to its return."""
    wakes: tuple[int, ...] = (0,) * (len(WAKE_BOUNDS) + 1)
    """How many of them took so long, by `WAKE_BOUNDS`; each modulo 2**32."""


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
    messages: int = 0
    """Sends that put bytes into the ring."""
    reader: Waits = Waits()
    """The consumer, which waits for bytes."""
    writer: Waits = Waits()
    """The producer, which waits for room."""
    copied: int = 0
    """It ended by FIN, and so many unread bytes went by TCP as well."""
    held: int = 0
    """Not 0: bytes from the position `~held` (of 64 bits) on wait for more to come."""

    @property
    def unread(self) -> int:
        """Bytes in the ring; the two positions may have moved between the looks."""
        return max(self.head - self.tail, 0)


class Segment(NamedTuple):
    """A segment's header as it was at one moment."""

    pair_id: int
    ring_size: int
    broker_wish: int
    """A reason's number, other than 0: both producers are to end."""
    to_server: Direction
    to_client: Direction
    taps: int = 0
    """A bit for each tap that sees the payload."""


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
    """The header of the segment behind `fd`. Raises SegmentError if it is none, or can't be
    read (swap that fails, say)."""
    try:
        data = os.pread(fd, _READ, header_of(fd))
    except OSError as error:
        raise SegmentError(f"a segment can't be read: {error.strerror}") from error
    if len(data) != _READ:
        raise SegmentError("a segment is shorter than its header")
    magic, version, header, pair_id, ring_size, _ = _IDENTITY.unpack_from(data)
    if (magic, version, header) != (MAGIC, VERSION, HEADER):
        raise SegmentError("a segment's header does not start as one")
    (word,) = _U32.unpack_from(data, BROKER_WISH)
    wish, taps = word & 0xFFFF, word >> 16
    directions = _direction(data, 0), _direction(data, 1)
    return Segment(pair_id, ring_size, wish, *directions, taps)


def _direction(data: bytes, index: int) -> Direction:
    at = DIRECTION + index * DIRECTION_SIZE
    head, mark, fin_hint, held, end_pos, reason, _ = _PRODUCER_LINE.unpack_from(data, at)
    (copied,) = _U64.unpack_from(data, at + _COPIED)
    (tcp_total,) = _U64.unpack_from(data, at + _TCP_TOTAL)
    (tail,) = _U64.unpack_from(data, at + TAIL)
    ready, closed, wish, why = _CONSUMER_LINE.unpack_from(data, at + CONSUMER)
    (messages,) = _U64.unpack_from(data, at + _MESSAGES)
    return Direction(
        head,
        mark,
        fin_hint,
        tcp_total,
        end_pos,
        reason,
        tail,
        ready != 0,
        closed != 0,
        wish,
        why,
        messages,
        _waits(data, at + READER, at + _CONSUMER_WAITS),
        _waits(data, at + WRITER, at + _PRODUCER_WAITS),
        copied,
        held,
    )


def _waits(data: bytes, armed_line: int, waits: int) -> Waits:
    armed, below, rings = _ARMED_LINE.unpack_from(data, armed_line)
    paid, vain, sleeps, wake_ns, *wakes = _WAITS.unpack_from(data, waits)
    return Waits(armed != 0, below, rings, paid, vain, sleeps, wake_ns, tuple(wakes))


def write_broker_word(fd: int, reason: int, taps: int) -> None:
    """Unless `reason` is 0, asks both producers to end their directions, which they do at their
    next send. `taps`: a bit for each tap that is to see the payload from the next send on. One
    store for both, so that neither is undone for a moment."""
    os.pwrite(fd, _U32.pack(reason | taps << 16), header_of(fd) + BROKER_WISH)
