"""What /proc tells of processes and of the memory of the whole machine."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from loopfuse._errors import BenchError
from loopfuse._kernel import processes

_TICKS = os.sysconf("SC_CLK_TCK")
_OF_KERNEL = ("Shmem", "PageTables", "Slab", "KernelStack")


def tree_of(root: int) -> list[int]:
    """A process and its descendants, root first."""
    children: dict[int, list[int]] = {}
    for pid in processes():
        if fields := _stat(pid):
            children.setdefault(int(fields[1]), []).append(pid)
    tree = [root]
    for pid in tree:
        tree.extend(children.get(pid, ()))
    return tree


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat from the state on, proc(5); empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def cpu_seconds(root: int) -> float:
    """CPU time of a process, its descendants, and those of them that it has waited for."""
    ticks = 0
    for pid in tree_of(root):
        fields = _stat(pid)
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def cpu_clock(pid: int) -> float:
    """CPU seconds of all threads of one process, to the nanosecond. Raises BenchError."""
    try:
        # The clock that clock_getcpuclockid(3) names.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise BenchError(f"the CPU time of process {pid} can't be read: is it gone?") from error


def switches(pid: int) -> int:
    """How often all threads of one process have been put on a CPU."""
    lines = [
        line
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in _text(status).splitlines()
    ]
    names = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
    return sum(int(line.split()[1]) for line in lines if line.split(":")[0] in names)


def cpu_ticks(cpu: int) -> tuple[int, int]:
    """Of one CPU since it was booted: ticks in softirqs, and all in which it was busy."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
            return softirq, user + nice + system + irq + softirq
    return 0, 0


def proportional_memory(pids: Iterable[int]) -> int:
    """Kilobytes of processes, each page divided among those that map it."""
    return sum(_kilobytes(f"/proc/{pid}/smaps_rollup", ("Pss",)) for pid in pids)


def private_memory(pids: Iterable[int]) -> int:
    """Kilobytes that nobody else maps."""
    names = ("Private_Dirty", "Private_Clean")
    return sum(_kilobytes(f"/proc/{pid}/smaps_rollup", names) for pid in pids)


def kernel_memory() -> int:
    """Kilobytes of the whole machine in what a connection takes outside of its processes:
    shared memory, page tables, the kernel's own objects."""
    return _kilobytes("/proc/meminfo", _OF_KERNEL)


def _kilobytes(file: str, names: tuple[str, ...]) -> int:
    found = re.findall(r"^(\w+): +(\d+) kB$", _text(Path(file)), re.MULTILINE)
    return sum(int(value) for name, value in found if name in names)


def _text(file: Path) -> str:
    """Empty if its process is gone."""
    try:
        return file.read_text()
    except OSError:
        return ""
