"""Party side: asking whether a socket is ready."""

from __future__ import annotations

import ctypes

from differential.libc import EpollEvent, Pollfd, Result, Timespec, call

WAYS = ("poll", "ppoll", "select")
_ALL_BITS = 0x1 | 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x2000
_BITS_OF_A_SET = 1024
MOST_EVENTS = 8


def poll(fd: int, how: str, events: int, timeout_ms: int) -> Result:
    """The events, or an errno."""
    if how == "select":
        return _select(fd, events, timeout_ms)
    asked = Pollfd(fd, events, 0)
    if how == "ppoll":
        spec = Timespec(timeout_ms // 1000, timeout_ms % 1000 * 1000000)
        limit = None if timeout_ms < 0 else ctypes.byref(spec)
        count = call("ppoll", ctypes.byref(asked), 1, limit, None)
    else:
        count = call("poll", ctypes.byref(asked), 1, timeout_ms)
    return count if isinstance(count, str) else int(asked.revents)


def _select(fd: int, events: int, timeout_ms: int) -> Result:
    """The same as bits: 1 to read, 4 to write, 2 for exceptions."""
    sets = []
    for bit in (1, 4, 2):
        one = (ctypes.c_ubyte * (_BITS_OF_A_SET // 8))()
        if events & bit:
            one[fd // 8] |= 1 << fd % 8
        sets.append(one)
    limit = Timespec(timeout_ms // 1000, timeout_ms % 1000 * 1000)  # a timeval, in fact
    count = call("select", fd + 1, *sets, None if timeout_ms < 0 else ctypes.byref(limit))
    if isinstance(count, str):
        return count
    return sum(bit for bit, one in zip((1, 4, 2), sets, strict=True) if one[fd // 8] >> fd % 8 & 1)


def level(fd: int) -> int:
    """Everything that poll would say of it now."""
    asked = Pollfd(fd, _ALL_BITS, 0)
    call("poll", ctypes.byref(asked), 1, 0)
    return int(asked.revents)


def epoll_ctl(epoll: int, operation: str, fd: int, events: int, data: int) -> Result:
    number = {"add": 1, "del": 2, "mod": 3}[operation]
    return call("epoll_ctl", epoll, number, fd, ctypes.byref(EpollEvent(events, data)))


def epoll_wait(epoll: int, timeout_ms: int) -> str | list[tuple[int, int]]:
    """Pairs of data and events, sorted: their order is nobody's business."""
    events = (EpollEvent * MOST_EVENTS)()
    count = call("epoll_wait", epoll, events, MOST_EVENTS, timeout_ms)
    if isinstance(count, str):
        return count
    return sorted((int(event.data), int(event.events)) for event in events[:count])
