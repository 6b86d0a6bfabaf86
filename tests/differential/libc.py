"""The C library as programs call it: no retries on EINTR, every flag, errno by name."""

from __future__ import annotations

import ctypes
import errno
import itertools
import platform
from collections.abc import Sequence
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
_SSIZE = (
    "send sendto write writev sendmsg sendfile splice pwritev2 "
    "recv recvfrom read readv recvmsg preadv2"
)
for _name in _SSIZE.split():
    getattr(LIBC, _name).restype = ctypes.c_ssize_t

Result = int | str
"""A return value, or the name of an errno."""

Address = tuple[str, int]


class Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    _fields_ = (("header", Msghdr), ("size", ctypes.c_uint))


class Pollfd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class EpollEvent(ctypes.Structure):
    # As the kernel has it: packed on x86 alone.
    _pack_ = 1 if platform.machine() == "x86_64" else 8
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def call(name: str, *arguments: Any) -> Result:
    """Calls the function of that name."""
    result: int = getattr(LIBC, name)(*arguments)
    if result != -1:
        return result
    number = ctypes.get_errno()
    return errno.errorcode.get(number, f"errno {number}")


def vector(buffer: ctypes.Array[ctypes.c_char], sizes: Sequence[int]) -> ctypes.Array[Iovec]:
    """An iovec over consecutive pieces of `buffer`."""
    pieces = (Iovec * max(1, len(sizes)))()
    start = ctypes.addressof(buffer)
    for piece, size in zip(pieces, sizes, strict=False):
        piece.base, piece.size = start, size
        start += size
    return pieces


def split(size: int, pieces: int) -> list[int]:
    """`size` in so many uneven pieces; the first may be empty."""
    shares = [size * i * (i + 1) // (pieces * (pieces + 1)) for i in range(pieces + 1)]
    return [after - before for before, after in itertools.pairwise(shares)]
