"""How to load a sanitizer build of the library into programs that were built without."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

_UNSUITED_SIGNALS = ":".join(
    f"handle_{name}=0" for name in ("segv", "sigbus", "abort", "sigfpe", "sigill", "sigtrap")
)
"""The sanitizers would call our sigaction() while they start, before they can watch it."""


@dataclass
class Loading:
    """What goes around a program: LD_PRELOAD, further variables, words before the command."""

    preload: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    prefix: list[str] = field(default_factory=list)
    keeps_signals_back: bool = False
    """A handler runs only once the call that its signal interrupts is over, though that may be a
    recv() which nobody answers."""


def loading_of(library: Path) -> Loading:
    """A finding ends the program with an exit status that no test takes for success."""
    built = library.read_bytes()
    if b"libasan.so" in built:
        # Leaks of the program's own threads are not the library's.
        return Loading(
            [runtime_of("libasan.so"), str(library)],
            {
                "ASAN_OPTIONS": f"detect_leaks=0:halt_on_error=1:{_UNSUITED_SIGNALS}",
                "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            },
        )
    if b"libtsan.so" in built:
        # The library first, else the runtime's own recv() stands before ours. The TSan of
        # Debian 12's gcc can't live with as much address randomisation as newer kernels do.
        options = f"exitcode=66:halt_on_error=1:die_after_fork=0:{_UNSUITED_SIGNALS}"
        return Loading(
            [str(library), runtime_of("libtsan.so")],
            {"TSAN_OPTIONS": options},
            ["setarch", "-R"],
            keeps_signals_back=True,
        )
    return Loading([str(library)])


def runtime_of(name: str) -> str:
    """The path of a sanitizer's runtime. Raises AssertionError if gcc has none."""
    path = subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip()
    assert Path(path).is_absolute(), f"{name} is missing: scripts/debian test"
    return path
