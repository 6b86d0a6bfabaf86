"""Which calls of the library are its own, and how the kernel may answer each of them."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from faults.control import FOR_GOOD, Site, Special

HANDED_ON = {
    "plain_send",
    "plain_recv",
    "tcp_send",
    "tcp_receive",
    "rest_by_tcp",
    "tcp_recv",
    "recv_counted",
    "look_at_tcp",
    "lf_conn_send",
    "lf_conn_recv",
    "lf_conn_shutdown",
    "ask_kernel",
    "poll_plainly",
    "lf_epoll_look_at_kernel",
    "kernel_wait",
    "wait_ms",
}
"""Functions whose calls are the program's, handed on: what the kernel says is for the program."""

_HANDS_ON = {"epoll_control.c"}
"""Files that do nothing else."""
_OWN_OF_NAMES = {"is_taken", "inherited"}
"""Functions of the files that hold the C library's names (interpose_*.c) that call for the
library's own sake."""


class Place(NamedTuple):
    """Where in the source a call stands."""

    site: Site
    functions: tuple[str, ...]
    """The innermost first; the others have it inlined."""
    file: str
    line: int

    @property
    def is_own(self) -> bool:
        if self.file.startswith("interpose_"):
            return self.functions[0] in _OWN_OF_NAMES
        return self.file not in _HANDS_ON and self.functions[0] not in HANDED_ON

    @property
    def is_shared(self) -> bool:
        """Many places call from there."""
        return self.file == "uncancelled.c"

    def __str__(self) -> str:
        return f"{self.site.name} in {self.functions[0]} ({self.file}:{self.line})"


def places(library: Path, sites: Iterable[Site]) -> list[Place]:
    """The sites with what the debugging information knows of them, in the order of the source."""
    sites = list(sites)
    command = ["addr2line", "-a", "-f", "-i", "-s", "-e", str(library)]
    command += [hex(site.offset - 1) for site in sites]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = []
    # An address, then two lines for each function.
    for site, block in zip(sites, text.split("0x")[1:], strict=True):
        lines = block.split("\n")[1:]
        file, _, line = lines[1].partition(":")
        number = line.split()[0]
        found.append(Place(site, tuple(lines[:-1:2]), file, int(number) if number.isdigit() else 0))
    return sorted(found, key=lambda place: (place.file, place.line, place.site))


_CERTAIN = {"tcp_has_failed", "abandon_ring", "inherited"}
"""Where SO_ERROR or F_GETFD is asked for, or SO_LINGER set: nothing there can fail."""
_WITHOUT_MEMORY = {"ppoll", "epoll_pwait"}
"""Of up to three descriptors: the kernel takes no memory for it."""
_RINGS = {"put_byte", "lf_bell_ring_always"}
_EVERYWHERE = (errno.ENOMEM,)
_ANSWERS: dict[str, tuple[int, ...]] = {
    "socket": (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EPERM),
    "connect": (errno.EPERM, errno.EAGAIN, errno.ECONNREFUSED, errno.EINTR),
    "sendmsg": (errno.EAGAIN, errno.EINTR, errno.ENOBUFS, Special.SHORT),
    "recvmsg": (errno.EAGAIN, errno.EINTR, Special.SHORT, Special.NO_RIGHTS),
    "recvfrom": (errno.EAGAIN, errno.EINTR),
    "sendto": (errno.EAGAIN, errno.EINTR, errno.ENOBUFS),
    "poll": (errno.EINTR, errno.EAGAIN),
    "ppoll": (errno.EINTR,),
    "fcntl": (errno.EMFILE, errno.EINVAL, errno.EPERM),
    "getsockopt": (errno.ENOPROTOOPT,),
    "setsockopt": (errno.EPERM,),
    "getpeername": (errno.ENOBUFS,),
    "getsockname": (errno.ENOBUFS,),
    "ioctl": (errno.EPERM,),
    "shutdown": (errno.ENOBUFS,),
    "epoll_ctl": (errno.ENOSPC,),
    "epoll_pwait": (errno.EINTR,),
    "signalfd": (errno.EMFILE,),
    "prlimit": (errno.EPERM,),
    "mmap": (errno.EAGAIN, errno.EPERM),
    "madvise": (errno.EFAULT, errno.EINTR, errno.EAGAIN),
    "fstat": (),
    "lseek": (errno.EOVERFLOW,),
    "nanosleep": (errno.EINTR,),
    "getrandom": (errno.EAGAIN, errno.EINTR),
    "close": (errno.EINTR, errno.EIO, errno.ENOSPC),
}


def answers(place: Place) -> tuple[int, ...]:
    """What may become of such a call when it does not succeed, errnos and `Special`s."""
    name = place.site.name
    if name == "close":
        return _ANSWERS[name]
    if place.functions[0] in _CERTAIN and name in ("getsockopt", "setsockopt", "fcntl"):
        return ()
    found = _ANSWERS[name] if name in _WITHOUT_MEMORY else (*_ANSWERS[name], *_EVERYWHERE)
    if place.functions[0] in _RINGS:  # EAGAIN: it has been rung, and nobody has looked yet
        return tuple(answer for answer in found if answer != errno.EAGAIN)
    return found


def most_times(name: str, answer: int) -> int:
    """How often in a row, at the most, such a call may fail so. What says "again" does not go on
    for ever; nor does a kernel without memory for the few bytes of a doorbell, or of an entry, or
    to throw away what it has."""
    if answer in (errno.EINTR, errno.EAGAIN):
        return 1
    if name in ("sendmsg", "sendto", "epoll_ctl", "recvfrom"):
        return 20
    return FOR_GOOD
