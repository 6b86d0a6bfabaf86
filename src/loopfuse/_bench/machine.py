"""The machine that is measured: facts that a reader of the figures needs."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Literal

from loopfuse._bench.results import Fact

_CPUS = Path("/sys/devices/system/cpu")


def facts() -> list[Fact]:
    """In the order of the report; what can't be read is left out."""
    allowed = sorted(os.sched_getaffinity(0))
    uname = os.uname()
    found = [
        ("CPU", _cpu_model()),
        ("CPUs for us", f"{len(allowed)} of {os.cpu_count()} ({_threads()})"),
        ("caches", _caches(allowed[0])),
        ("clock", _governor(allowed[0])),
        ("virtual machine", "yes" if "hypervisor" in _cpuinfo("flags").split() else ""),
        ("memory", _memory()),
        ("kernel", f"{uname.sysname} {uname.release}, {uname.machine}"),
        ("system", _system()),
        ("C library", " ".join(platform.libc_ver()).strip()),
        ("Python", platform.python_version()),
        ("load before", " ".join(f"{value:.2f}" for value in os.getloadavg())),
    ]
    return [Fact(name, value) for name, value in found if value]


def disturbance() -> str | None:
    """A warning, if something else seems to keep the CPUs busy."""
    load, cpus = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > cpus / 2:
        return (
            f"the load of this machine was {load:.1f} on {cpus} CPUs before the run began: other "
            "programs took part in these figures"
        )
    return None


def cpus_of(where: Literal["any", "one", "two"]) -> tuple[int, int] | None:
    """The CPUs for the server and the client; None: wherever they run, or there is none.
    Two are two cores, if there are two, and not two threads of one."""
    allowed = sorted(os.sched_getaffinity(0))
    if where == "any":
        return None
    first = allowed[-1]  # the first one takes most interrupts
    if where == "one":
        return first, first
    siblings = _siblings(first)
    others = [cpu for cpu in allowed if cpu not in siblings] or [c for c in allowed if c != first]
    return (first, others[-1]) if others else None


def _siblings(cpu: int) -> set[int]:
    """The hardware threads of that CPU's core."""
    found = {cpu}
    for part in _read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list").split(","):
        numbers = [int(number) for number in re.findall(r"\d+", part)]
        found.update(range(numbers[0], numbers[-1] + 1) if numbers else ())
    return found


def _threads() -> str:
    allowed = os.sched_getaffinity(0)
    cores = {min(_siblings(cpu)) for cpu in allowed}
    return "one thread a core" if len(cores) == len(allowed) else f"{len(cores)} cores"


def _cpu_model() -> str:
    return _cpuinfo("model name") or _cpuinfo("Model") or platform.processor()


def _cpuinfo(name: str) -> str:
    found = re.search(rf"^{name}\s*: (.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1].strip() if found else ""


def _caches(cpu: int) -> str:
    found = []
    for folder in sorted((_CPUS / f"cpu{cpu}/cache").glob("index*")):
        if _read(folder / "type") != "Instruction":
            found.append(f"L{_read(folder / 'level')} {_read(folder / 'size')}")
    return ", ".join(found)


def _governor(cpu: int) -> str:
    return _read(_CPUS / f"cpu{cpu}/cpufreq/scaling_governor")


def _memory() -> str:
    found = re.search(r"MemTotal: +(\d+) kB", _read(Path("/proc/meminfo")))
    return f"{int(found[1]) / (1 << 20):.1f} GiB" if found else ""


def _system() -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read(Path("/etc/os-release")), re.MULTILINE)
    return found[1] if found else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
