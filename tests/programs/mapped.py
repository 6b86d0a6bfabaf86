"""Is a connection of this process fused? For test programs, which ask no broker."""

from __future__ import annotations

from pathlib import Path


def has_a_segment() -> bool:
    return "loopfuse-segment" in Path("/proc/self/maps").read_text()
