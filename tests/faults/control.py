"""The file that the injector (injector.c) and a test share: what is to fail, what was called."""

from __future__ import annotations

import enum
import mmap
import os
import struct
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

_ORDER = struct.Struct("=I16sIIiIIq")
_SITE = struct.Struct("=II16s")
_SITES = 512
_SEEN = struct.Struct("=II")
_SEEN_AT = struct.calcsize("=I16sIIi")
_JUMP = struct.Struct("=q")
_JUMP_AT = _ORDER.size - _JUMP.size


class Special(enum.IntEnum):
    """What can become of a call beside an errno."""

    SHORT = -1
    """It moves fewer bytes than it was asked to."""
    NO_RIGHTS = -2
    """The descriptors that come with a message are lost, as when no number is free."""
    KILL = -3
    """SIGKILL arrives before it."""
    STOP = -4
    """SIGSTOP arrives before it."""
    KILL_AFTER = -5
    """SIGKILL arrives in the kernel, and ends the process once it is done: `sendmsg` only."""


class Site(NamedTuple):
    """Where calls of one kind come from."""

    offset: int
    """Of the return address in the library; 1 if every caller counts."""
    name: str
    """Of the call."""


FOR_GOOD = 0xFFFFFFFF
"""More often than any program calls."""


class Order(NamedTuple):
    """What is to fail."""

    offset: int
    """Where the call returns to, 0: anywhere."""
    name: str
    error: int
    """An errno, or a `Special`."""
    nth: int = 1
    times: int = 1
    """So many in a row."""


class Control:
    """One such file, mapped; processes started with `environment` obey it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = _ORDER.size + _SITES * _SITE.size
        path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)

    def __enter__(self) -> Control:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._memory.close()
        self.path.unlink()

    def environment(
        self, injector: Path, caller: str | None, base: dict[str, str]
    ) -> dict[str, str]:
        """`base`, with the injector behind whatever is preloaded. `caller`: how the path ends of
        the file whose calls are meant, None: all calls are."""
        preload = base.get("LD_PRELOAD")
        made = base | {"FAULTS_CONTROL": os.fspath(self.path)}
        made["LD_PRELOAD"] = f"{preload}:{injector}" if preload else str(injector)
        if caller:
            made["FAULTS_CALLER"] = caller
        return made

    def prefix(self, injector: Path) -> list[str]:
        """Words to put before a command all of whose calls are meant."""
        words = self.environment(injector, None, {})
        return ["env", *(f"{name}={value}" for name, value in words.items())]

    def give(self, order: Order) -> None:
        """From now on. The count of such calls starts at the first one."""
        packed = _ORDER.pack(
            order.offset, order.name.encode(), order.nth, order.times, order.error, 0, 0, 0
        )
        self._memory[: _ORDER.size] = packed

    def fired(self) -> int:
        """How many calls have failed."""
        _, fired = _SEEN.unpack_from(self._memory, _SEEN_AT)
        return int(fired)

    def jump(self, seconds: float) -> None:
        """Sets the wall clock of all these processes forward, or back."""
        _JUMP.pack_into(self._memory, _JUMP_AT, int(seconds * 1e9))

    def calls(self) -> dict[Site, int]:
        """How often each site has called."""
        found = {}
        for index in range(_SITES):
            offset, count, name = _SITE.unpack_from(self._memory, _ORDER.size + index * _SITE.size)
            if offset:
                found[Site(offset, name.rstrip(b"\0").decode())] = count
        return found

    def calls_by_name(self) -> Counter[str]:
        """How often each call has been made, from all sites together."""
        counts: Counter[str] = Counter()
        for site, count in self.calls().items():
            counts[site.name] += count
        return counts
