"""The memory through which a tap gets what tapped connections send.

Twin of csrc/capture.h, which tells how producers and tap share it, and the only Python module
that knows its layout; docs/tap.md draws it. The broker makes a ring and closes it, a tap reads
it. Producers are anybody's programs: each word of it is checked before it is used.
"""

from __future__ import annotations

import contextlib
import enum
import mmap
import os
import struct
import threading
from typing import NamedTuple

from loopfuse._errors import TapError
from loopfuse._kernel import sealed_memfd

MAGIC = 0x315041545046304C
VERSION = 1
HEADER = 4096
CELL = 256
CELLS_MIN = 1024
CELLS_MAX = 1 << 20
MOST = 32768
"""Payload bytes of one record."""
CLOSED = 0x080
RESERVED = 0x100
LOST = 0x108
READ = 0x180
HOLE_SECONDS = 1.0
"""How long a record that was begun may take, before the tap passes it over."""

_IDENTITY = struct.Struct("=QIIII")
_U32 = struct.Struct("=I")
RECORD = struct.Struct("=QqQQIIIBBxx16x")
_MASK = (1 << 64) - 1


class Kind(enum.IntEnum):
    """Twin of `enum lf_capture_kind`."""

    DATA = 1
    FIN = 2
    RST = 3


class Record(NamedTuple):
    """What one producer wrote: claims, not facts, but for sizes."""

    pair_id: int
    time: int
    """CLOCK_REALTIME, ns."""
    position: int
    """Of its first byte in this direction of the ring."""
    tcp_before: int
    """Payload that went by TCP in this direction before the ring."""
    length: int
    pid: int
    direction: int
    """0: to the server."""
    kind: Kind
    payload: bytes
    """The first bytes of `length`, all of them unless the tap asked for fewer."""


def size_of(cells: int) -> int:
    """Bytes of a ring of so many cells."""
    return HEADER + cells * (8 + CELL)


def cells_for(size: int) -> int:
    """Of the largest ring whose cells take no more than `size` bytes; the smallest there is, if
    that is less."""
    fitting = max(size // CELL, 1)
    return min(max(1 << (fitting.bit_length() - 1), CELLS_MIN), CELLS_MAX)


def make_capture_ring(cells: int, snap: int) -> int:
    """A new ring's descriptor, the caller's to close. Raises OSError as memfd_create(2) does."""
    identity = _IDENTITY.pack(MAGIC, VERSION, cells, min(snap, 0xFFFFFFFF), 0)
    return sealed_memfd("loopfuse-capture", size_of(cells), identity)


def close_capture_ring(fd: int) -> None:
    """Tells producers that nobody reads any more. The descriptor stays open."""
    os.pwrite(fd, _U32.pack(1), CLOSED)


def drop_capture_ring(fd: int) -> None:
    """The same, and gives its memory back, which producers have mapped until they look."""
    close_capture_ring(fd)
    size = os.fstat(fd).st_size
    with mmap.mmap(fd, size) as memory:
        memory.madvise(mmap.MADV_REMOVE, HEADER, size - HEADER)


class CaptureRing:
    """The tap's end of one ring. Takes its descriptor over; raises TapError if it is none."""

    def __init__(self, fd: int, cells: int) -> None:
        try:
            size = os.fstat(fd).st_size
            if not CELLS_MIN <= cells <= CELLS_MAX or cells & (cells - 1) or size != size_of(cells):
                raise TapError("the broker handed out a capture ring of the wrong size")
            # Populated by us: the memory is ours to pay for, not the programs'.
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            self._memory = mmap.mmap(fd, size, flags)
        finally:
            os.close(fd)
        view = memoryview(self._memory)
        self._words = view[:HEADER].cast("Q")
        self._ready = view[HEADER : HEADER + 8 * cells].cast("Q")
        self._cells = cells
        self._data = HEADER + 8 * cells
        self._next = 0
        self._hole_since: float | None = None
        self._fence = threading.Lock()
        self._fence.acquire()
        self.damaged = 0
        """Records that were left out since they were not complete, or made no sense."""

    @property
    def reserved(self) -> int:
        """Cells that producers have begun to use, ever."""
        return self._words[RESERVED // 8]

    @property
    def position(self) -> int:
        """Cells that were read."""
        return self._next

    @property
    def lost(self) -> int:
        """Records for which there was no room; as the producers count them."""
        return self._words[LOST // 8]

    def take(self, until: int, most: int, now: float) -> list[Record]:
        """The next records, `most` of them, of those that begin before cell `until` (a former
        value of `reserved`). `now`: time.monotonic()."""
        found = self._complete(until, most, now)
        if found:
            # Acquire: the words that say so were loaded before what they stand for.
            self._order()
        records = []
        for cell, count in found:
            record = self._read(cell, count)
            if record is None:
                self.damaged += 1
            else:
                records.append(record)
        # Release: we have copied before the cells are free. The store is one of 64 bits.
        self._order()
        self._words[READ // 8] = self._next
        return records

    def _order(self) -> None:
        """A full fence, which Python has no name for: to give a lock back is a release, to take
        it an acquire, and neither passes the other."""
        self._fence.release()
        self._fence.acquire()

    def _complete(self, until: int, most: int, now: float) -> list[tuple[int, int]]:
        """First cell and number of cells of the records that can be read; moves on behind them."""
        if (until - self._next) & _MASK > self._cells:
            # Somebody wrote nonsense: all that can be done is to begin anew.
            self.damaged += 1
            self._next = until
            return []
        found: list[tuple[int, int]] = []
        mask, ready = self._cells - 1, self._ready
        cell = self._next
        while cell != until and len(found) < most:
            word = ready[cell & mask]
            count = word & 0xFF
            if word >> 8 != (cell + 1) & (_MASK >> 8) or not 0 < count <= (until - cell) & _MASK:
                cell = self._pass_hole(cell, until, now)
                if self._hole_since is not None:
                    break
                continue
            self._hole_since = None
            found.append((cell, count))
            cell = (cell + count) & _MASK
        self._next = cell
        return found

    def _pass_hole(self, cell: int, until: int, now: float) -> int:
        """Where to go on. A hole that stays is a producer that was killed on the way."""
        if self._hole_since is None:
            self._hole_since = now
        if now - self._hole_since < HOLE_SECONDS:
            return cell
        self._hole_since = None
        self.damaged += 1
        mask, ready = self._cells - 1, self._ready
        for other in range(cell + 1, until):
            if ready[other & mask] >> 8 == other + 1:
                return other
        return until

    def _read(self, cell: int, count: int) -> Record | None:
        at = self._data + (cell & (self._cells - 1)) * CELL
        fields = RECORD.unpack_from(self._memory, at)
        pair_id, when, position, tcp_before, length, captured, pid, direction, kind = fields
        if (
            captured > count * CELL - RECORD.size
            or captured > length
            or length > MOST
            or direction > 1
            or not Kind.DATA <= kind <= Kind.RST
            or (kind == Kind.DATA) != (length > 0)
        ):
            return None
        begin = at + RECORD.size
        payload = self._memory[begin : begin + captured]
        short = captured - len(payload)
        if short:  # the ring's last cell is followed by its first
            payload += self._memory[self._data : self._data + short]
        kind = Kind(kind)
        return Record(pair_id, when, position, tcp_before, length, pid, direction, kind, payload)

    def close(self) -> None:
        """Producers are told, and the memory is given back."""
        self._words.release()
        self._ready.release()
        self._memory[CLOSED : CLOSED + 4] = _U32.pack(1)
        with contextlib.suppress(OSError, ValueError):  # pages may be larger than the header
            self._memory.madvise(mmap.MADV_REMOVE, HEADER, len(self._memory) - HEADER)
        self._memory.close()
