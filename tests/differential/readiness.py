"""Party side: asking whether a socket is ready."""

from __future__ import annotations

import ctypes
from typing import Any

from differential.libc import EpollEvent, Pollfd, Result, Timespec, call

WAYS = ("poll", "ppoll", "select", "pselect")
EPOLL_WAYS = ("epoll_wait", "epoll_pwait", "epoll_pwait2")
_ALL_BITS = 0x1 | 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x2000
_BITS_OF_A_SET = 1024
MOST_EVENTS = 8


def poll(fd: int, how: str, events: int, timeout_ms: int) -> Result:
    """The events, or an errno."""
    if how in ("select", "pselect"):
        return _select(fd, how, events, timeout_ms)
    asked = Pollfd(fd, events, 0)
    if how == "ppoll":
        count = call("ppoll", ctypes.byref(asked), 1, _limit(timeout_ms, 1000000), None)
    else:
        count = call("poll", ctypes.byref(asked), 1, timeout_ms)
    return count if isinstance(count, str) else int(asked.revents)


def _limit(timeout_ms: int, unit: int) -> Any:
    """A timespec, whose unit is a millionth of a millisecond, or a timeval: a thousandth."""
    if timeout_ms < 0:
        return None
    return ctypes.byref(Timespec(timeout_ms // 1000, timeout_ms % 1000 * unit))


def _select(fd: int, how: str, events: int, timeout_ms: int) -> Result:
    """The same as bits: 1 to read, 4 to write, 2 for exceptions."""
    sets = []
    for bit in (1, 4, 2):
        one = (ctypes.c_ubyte * (_BITS_OF_A_SET // 8))()
        if events & bit:
            one[fd // 8] |= 1 << fd % 8
        sets.append(one)
    if how == "select":
        count = call("select", fd + 1, *sets, _limit(timeout_ms, 1000))
    else:
        count = call("pselect", fd + 1, *sets, _limit(timeout_ms, 1000000), None)
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


def epoll_wait(epoll: int, how: str, timeout_ms: int) -> str | list[tuple[int, int]]:
    """Pairs of data and events, sorted: their order is nobody's business."""
    events = (EpollEvent * MOST_EVENTS)()
    if how == "epoll_wait":
        count = call("epoll_wait", epoll, events, MOST_EVENTS, timeout_ms)
    elif how == "epoll_pwait":
        count = call("epoll_pwait", epoll, events, MOST_EVENTS, timeout_ms, None)
    else:
        limit = _limit(timeout_ms, 1000000)
        count = call("epoll_pwait2", epoll, events, MOST_EVENTS, limit, None)
    if isinstance(count, str):
        return count
    return sorted((int(event.data), int(event.events)) for event in events[:count])
