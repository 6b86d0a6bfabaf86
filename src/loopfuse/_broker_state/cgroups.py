"""How much memory a process may still take, by the control groups it is in.

A ring's page is charged to the group of whoever touches it first, and a group that is full has a
process killed, where TCP would have made a sender wait. Both hierarchies are understood: memory
under /sys/fs/cgroup/memory (v1), and the unified one (v2).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_UNLIMITED = 1 << 60  # v1 says so with nearly 2**63
_MOST_LEVELS = 32


class _Names(NamedTuple):
    limit: str
    usage: str
    reclaimable: str
    """In memory.stat: pages that the kernel takes back before anybody is killed."""


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")


def headroom(pid: int, root: Path = Path("/")) -> int | None:
    """Bytes until the tightest group of the process is full; None: no limit, or none that one
    can see. `root`: where /proc and /sys are."""
    try:
        lines = (root / f"proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    found: list[int] = []
    for line in lines:
        number, controllers, path = line.split(":", 2)
        base = root / "sys/fs/cgroup"
        if "memory" in controllers.split(","):
            found += _levels(base / "memory", path, _V1)
        elif number == "0":
            unified = base / "unified"
            found += _levels(unified if unified.is_dir() else base, path, _V2)
    return min(found, default=None)


def _levels(base: Path, path: str, names: _Names) -> list[int]:
    """What each group that has a limit leaves, from the process's own up to the base."""
    found = []
    parts = [part for part in path.split("/") if part and part != ".."]
    for depth in range(min(len(parts), _MOST_LEVELS), -1, -1):
        left = _left(base.joinpath(*parts[:depth]), names)
        if left is not None:
            found.append(left)
    return found


def _left(group: Path, names: _Names) -> int | None:
    try:
        limit = (group / names.limit).read_text().strip()
        if limit == "max" or int(limit) >= _UNLIMITED:
            return None
        usage = int((group / names.usage).read_text())
        stat = dict(line.split(" ", 1) for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - usage + int(stat.get(names.reclaimable, 0)))
    except (OSError, ValueError):
        return None
