"""How large the rings of the next pair may be.

A segment takes memory only where it was written, but keeps that while it lives. Rings are
large, so that a program may send as much as TCP's buffers would take before anybody reads;
when all of them together have come to hold a good part of the machine's memory, new ones are
small, as TCP stops growing its buffers under pressure (tcp_mem in tcp(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from loopfuse._segments import RING_THRIFTY, memory_of

_SHARE = 8
"""Thrift begins at this part of the memory."""


class Budget:
    """Decides on ring sizes, in bytes."""

    def __init__(self, ring_size: int, memory: int | None = None) -> None:
        """`memory`: of the machine, bytes; None: ask it."""
        self._ring_size = ring_size
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._most = (total if memory is None else memory) // _SHARE
        self._used = 0

    def measure(self, segments: Iterable[int]) -> None:
        """Takes stock of all segments, given as descriptors."""
        self._used = sum(memory_of(segment) for segment in segments)

    def ring_size(self) -> int:
        """For the next pair."""
        if self._used > self._most:
            return min(self._ring_size, RING_THRIFTY)
        return self._ring_size
