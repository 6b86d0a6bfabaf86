"""What processes hold: descriptors, mappings of our memory, resident memory; seen from outside."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SEGMENT = "loopfuse-segment"
"""In the name that the kernel has for the memory of a connection."""


class Holdings(NamedTuple):
    """Of one process, or of several together."""

    descriptors: int
    mappings: int
    """Of segments."""
    memory: int
    """Resident, KiB."""

    def is_back_at(self, before: Holdings, processes: int = 1) -> bool:
        """Memory aside, is there no more than when no connection had ever been? Each process
        keeps its connection to the broker."""
        return (
            self.mappings <= before.mappings and self.descriptors <= before.descriptors + processes
        )


def holdings_of(*pids: int) -> Holdings:
    """Those that have ended hold nothing."""
    each = [_one(pid) for pid in pids]
    return Holdings(*(sum(numbers) for numbers in zip(*each, strict=True)))


def _one(pid: int) -> Holdings:
    process = Path(f"/proc/{pid}")
    try:
        descriptors = len(list((process / "fd").iterdir()))
        mappings = (process / "maps").read_text().count(SEGMENT)
        status = (process / "status").read_text()
    except OSError:
        return Holdings(0, 0, 0)
    resident = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return Holdings(descriptors, mappings, int(resident[0]) if resident else 0)


def processes_in(group: int) -> list[int]:
    """Those of a process group."""
    return [pid for pid, one in _standings() if one.group == group and one.state != "Z"]


def children_of(parent: int) -> list[int]:
    """Of a process; those that have ended, and that it has not waited for yet, are left out."""
    return [pid for pid, one in _standings() if one.parent == parent and one.state != "Z"]


class _Standing(NamedTuple):
    """Of a process, from /proc/PID/stat, proc(5)."""

    state: str
    parent: int
    group: int


def _standing_of(pid: int) -> _Standing | None:
    """None: it is gone."""
    try:
        state, parent, group = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:3]
    except OSError:
        return None
    return _Standing(state, int(parent), int(group))


def has_state(pid: int, letter: str) -> bool:
    """Such as S: it sleeps; T: it is stopped."""
    standing = _standing_of(pid)
    return standing is not None and standing.state == letter


def _standings() -> Iterator[tuple[int, _Standing]]:
    for process in Path("/proc").glob("[0-9]*"):
        standing = _standing_of(int(process.name))
        if standing is not None:
            yield int(process.name), standing


def processes_of(folder: Path) -> list[int]:
    """Those that were started for a broker in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(folder) in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def segments_in_use(folder: Path) -> list[int]:
    """Processes with a broker in this folder that have a segment mapped or open."""
    return [pid for pid in processes_of(folder) if uses_segments(pid)]


def uses_segments(pid: int) -> bool:
    process = Path(f"/proc/{pid}")
    found = ""
    with suppress(OSError):
        found = (process / "maps").read_text()
        for fd in (process / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found += str(fd.readlink())
    return SEGMENT in found


def forgotten_memory() -> set[str]:
    """Names in /dev/shm that no process has mapped: nobody is left to remove them. Only this
    user's: the PostgreSQL of a test beside this one comes and goes as another."""
    ours, mapped = set(), set()
    for file in Path("/dev/shm").iterdir():
        with suppress(FileNotFoundError):
            if file.stat().st_uid == os.getuid():
                ours.add(file.name)
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            mapped |= set(re.findall(r"/dev/shm/(\S+)", maps.read_text()))
    return ours - mapped
