"""Processes that have asked for a broker, and may still come.

`loopfuse run` looks whether a broker answers, hangs up, and becomes its program, which is no
client before its first connection is worth a claim. Until then its process is all that tells
the broker to stay.
"""

from __future__ import annotations

import os
import select

_MOST = 1024
"""Of more it is not known that they still run: descriptors are for clients."""


class Guests:
    """Those that hung up and run on; each is a pidfd, readable once it has ended."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self._pids: dict[int, int] = {}  # by pidfd

    def __len__(self) -> int:
        return len(self._pids)

    def owns(self, fd: int) -> bool:
        return fd in self._pids

    def note(self, pid: int) -> None:
        """`pid`: as SO_PEERCRED gave it; 0 is nobody that we can name."""
        if pid <= 0 or len(self._pids) >= _MOST or pid in self._pids.values():
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return  # it has ended, or the kernel has no room for it
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except OSError:
            os.close(fd)
        else:
            self._pids[fd] = pid

    def leave(self, fd: int) -> None:
        """That process has ended."""
        del self._pids[fd]
        os.close(fd)

    def close(self) -> None:
        for fd in list(self._pids):
            self.leave(fd)
