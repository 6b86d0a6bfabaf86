"""What kind of program a file is, as far as preloading a library into it is concerned.

Reads ELF headers (elf(5)) and ``#!`` lines (execve(2)); runs nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from loopfuse._paths import may_be_there

_PT_INTERP = 3
_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243, "ppc64le": 21, "s390x": 22}
_PATH_MAX = 4096
_SCRIPT_DEPTH = 4  # the kernel follows five interpreters at the most


class Obstacle(Enum):
    """Why a program can't load the library; the value says it in words."""

    STATIC = "it is statically linked: there is no dynamic loader to load the library"
    MUSL = "it is linked against musl: a glibc library can't be loaded into it"
    FOREIGN = "it is built for another machine or word size than the library"
    PRIVILEGED = "it is setuid, setgid or has file capabilities: ld.so ignores LD_PRELOAD"
    NOT_ELF = "it is neither an ELF program nor a script"


@dataclass(frozen=True)
class Program:
    """A program as execve(2) would find it."""

    path: Path
    """The file named, found on PATH."""
    binary: Path
    """The ELF file that will really run: the interpreter, for a script."""
    interpreter: str | None
    """The dynamic loader it asks for, ``None`` for a static program."""
    obstacle: Obstacle | None
    """What stands against preloading, ``None``: nothing."""


def find_program(name: str) -> Path | None:
    """The file that ``execvp(name)`` would run; ``None``: there is none on PATH."""
    if "/" in name:
        return Path(name) if may_be_there(Path(name)) else None
    found = shutil.which(name)
    return Path(found) if found else None


def examine(path: Path) -> Program:
    """Looks at the program at ``path`` and at the interpreter of a script.

    Raises OSError if it can't be read.
    """
    binary = path
    for _ in range(_SCRIPT_DEPTH):
        with binary.open("rb") as file:
            start = file.read(256)
        if not start.startswith(b"#!"):
            break
        words = start[2:].split(b"\n", 1)[0].split()
        if not words:
            return Program(path, binary, None, Obstacle.NOT_ELF)
        binary = Path(os.fsdecode(words[0]))
        if binary.name == "env" and len(words) > 1:
            # `#!/usr/bin/env python3`: env is dynamic and runs what matters.
            target = find_program(os.fsdecode(words[-1]))
            binary = target or binary
    interpreter, obstacle = _examine_elf(binary)
    if _is_privileged(path):
        obstacle = Obstacle.PRIVILEGED
    return Program(path, binary, interpreter, obstacle)


def _is_privileged(path: Path) -> bool:
    if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def _examine_elf(path: Path) -> tuple[str | None, Obstacle | None]:
    with path.open("rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:4] != b"\x7fELF":
            return None, Obstacle.NOT_ELF
        order = "<" if header[5] == 1 else ">"
        machine = struct.unpack_from(order + "H", header, 18)[0]
        if header[4] != 2 or machine != _MACHINES.get(platform.machine(), machine):
            return None, Obstacle.FOREIGN
        offset = struct.unpack_from(order + "Q", header, 32)[0]
        size, count = struct.unpack_from(order + "HH", header, 54)
        end = file.seek(0, os.SEEK_END)
        file.seek(min(offset, end))
        table = file.read(size * count)
        for i in range(count):
            entry = table[i * size : (i + 1) * size]
            if len(entry) < 40 or struct.unpack_from(order + "I", entry)[0] != _PT_INTERP:
                continue
            start, length = struct.unpack_from(order + "8xQ16xQ", entry)
            file.seek(min(start, end))
            interpreter = file.read(min(length, _PATH_MAX)).rstrip(b"\0").decode("utf-8", "replace")
            return interpreter, Obstacle.MUSL if "musl" in interpreter else None
    return None, Obstacle.STATIC
