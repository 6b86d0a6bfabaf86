"""Instructions in user space, counted by valgrind's callgrind where the CPU does not count them for
us: it runs the program in a machine of its own, some fifty times slower, and sees no kernel."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from loopfuse._errors import BenchError


def obstacle() -> str | None:
    """Why it can't be had here; None: it can."""
    return None if shutil.which("valgrind") else "not found: valgrind"


def command(log: Path, function: str) -> list[str]:
    """The words before a program, to have those instructions counted that run between entry
    and end of that function, in whatever it calls."""
    return [
        shutil.which("valgrind") or "valgrind",
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--collect-atstart=no",
        f"--toggle-collect={function}",
        f"--log-file={log}",
    ]


def counted(log: Path) -> int:
    """Of a program that has ended. Raises BenchError."""
    found = re.search(r"Collected : (\d+)", log.read_text(errors="replace"))
    if found is None or found[1] == "0":
        raise BenchError("callgrind has counted no instructions")
    return int(found[1])
