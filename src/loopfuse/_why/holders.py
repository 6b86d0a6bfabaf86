"""Which processes hold a socket, and what they are as far as fusing is concerned.

One walk through /proc finds all holders; what takes more than a look at the descriptors is
only asked of processes that matter.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from loopfuse._elf import Obstacle, examine
from loopfuse._kernel import (
    IO_URING,
    command_name,
    descriptors_of,
    environment_of,
    executable_of,
    has_mapped,
    has_polled_ring,
    network_namespace_of,
    processes,
    socket_link,
    user_of,
)
from loopfuse._policy import Answer, Who, is_program
from loopfuse._preload import LIBRARY_STEM


class Process:
    """One process that one may look into. Each fact is looked up once, when asked for."""

    def __init__(self, pid: int, descriptors: set[str]) -> None:
        self.pid = pid
        self.descriptors = descriptors
        """What its descriptors lead to."""

    @cached_property
    def comm(self) -> str | None:
        return command_name(self.pid)

    @cached_property
    def executable(self) -> str | None:
        return executable_of(self.pid)

    @cached_property
    def uid(self) -> int | None:
        return user_of(self.pid)

    @cached_property
    def namespace(self) -> str | None:
        """Its network namespace."""
        return network_namespace_of(self.pid)

    @cached_property
    def has_library(self) -> bool | None:
        """Is the preload library in its memory? None: it is hidden."""
        return has_mapped(self.pid, LIBRARY_STEM)

    @cached_property
    def broker(self) -> str | None:
        """Path of the broker's socket that its library goes by; None: unknown."""
        return (environment_of(self.pid) or {}).get("LOOPFUSE_BROKER")

    @cached_property
    def obstacle(self) -> Obstacle | None:
        """What stands against loading the library into its program."""
        try:
            return examine(Path(f"/proc/{self.pid}/exe")).obstacle
        except OSError:
            return None

    @cached_property
    def has_polled_ring(self) -> bool:
        """An io_uring of whose requests the library can't know."""
        return IO_URING in self.descriptors and has_polled_ring(self.pid)

    def is_program(self, pattern: str) -> bool:
        """Does a name (or, with a slash, a path) as in a policy file fit it?"""
        who = Who(self.uid or 0, self.comm, self.executable)
        return is_program(who, pattern) == Answer.YES


class Census:
    """All processes at one moment, by the sockets they hold."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self._by_link: dict[str, list[Process]] = {}
        for pid in processes():
            descriptors = descriptors_of(pid)
            if descriptors is None:
                continue
            process = Process(pid, descriptors)
            self.processes.append(process)
            for link in descriptors:
                if link.startswith("socket:"):
                    self._by_link.setdefault(link, []).append(process)

    def holders(self, inode: int) -> list[Process]:
        """Of the socket of this inode, as far as one may look."""
        return self._by_link.get(socket_link(inode), [])

    def other_namespaces(self) -> dict[str, int]:
        """Network namespaces other than this process's, each with a process in it."""
        here = network_namespace_of("self")
        found: dict[str, int] = {}
        for process in self.processes:
            if process.namespace not in (None, here, *found):
                found[str(process.namespace)] = process.pid
        return found
