"""How large the rings of the next pair may be.

A segment takes memory only where it was written, but keeps that while it lives. Rings are
large, so that a program may send as much as TCP's buffers would take before anybody reads;
when all of them together have come to hold a good part of the machine's memory, new ones are
small, as TCP stops growing its buffers under pressure (tcp_mem in tcp(7)). The same for pairs of a
process whose memory control group is nearly full; where even small ones would fill it, there is
none.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable

from loopfuse._broker_state.cgroups import headroom
from loopfuse._segments import RING_THRIFTY, memory_of

_SHARE = 8
"""Thrift begins at this part of the memory."""
_FRESH_SECONDS = 0.5
_SHARE_OF_TIME = 20
_MOST_ROOMS = 1000


class Budget:
    """Decides on ring sizes, in bytes."""

    def __init__(self, ring_size: int, memory: int | None = None) -> None:
        """`memory`: of the machine, bytes; None: ask it."""
        self._ring_size = ring_size
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._most = (total if memory is None else memory) // _SHARE
        self._used = 0
        self._stale_at = 0.0
        self._rooms: dict[int, tuple[float, int | None]] = {}
        """When each process's control groups were looked at, and the room they had."""

    def measure(self, segments: Iterable[int]) -> None:
        """Takes stock of all segments, given as descriptors."""
        begin = time.monotonic()
        self._used = sum(memory_of(segment) for segment in segments)
        end = time.monotonic()
        self._stale_at = end + max(_FRESH_SECONDS, _SHARE_OF_TIME * (end - begin))

    def refresh(self, segments: Iterable[int]) -> None:
        """The same, before it matters, unless that was done a moment ago: for a twentieth of the
        time at most."""
        if time.monotonic() >= self._stale_at:
            self.measure(segments)

    @property
    def used(self) -> int:
        """Bytes that all segments took when last measured."""
        return self._used

    def ring_size(self, pids: Iterable[int] = ()) -> int:
        """For the next pair, of these processes. Raises OSError (ENOMEM) if one of them is in a
        control group without room for any."""
        thrifty = min(self._ring_size, RING_THRIFTY)
        known = [room for pid in pids if (room := self._headroom(pid)) is not None]
        if known and min(known) < _SHARE * 2 * thrifty:
            raise OSError(errno.ENOMEM, "a memory control group is full")
        short = bool(known) and min(known) < _SHARE * 2 * self._ring_size
        return thrifty if short or self._used > self._most else self._ring_size

    def _headroom(self, pid: int) -> int | None:
        """As it was a moment ago: asking takes as long as all else that a pairing costs."""
        now = time.monotonic()
        asked, room = self._rooms.get(pid, (-_FRESH_SECONDS, None))
        if now - asked >= _FRESH_SECONDS:
            if len(self._rooms) >= _MOST_ROOMS:
                self._rooms.clear()
            room = headroom(pid)
            self._rooms[pid] = (now, room)
        return room
