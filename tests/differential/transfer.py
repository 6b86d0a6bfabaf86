"""Party side: sending and receiving in every guise that the C library has for them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable

from differential.libc import LIBC, Iovec, Mmsghdr, Msghdr, Result, call, split, vector
from differential.payload import PERIODS, payload

SENDS = [
    "send",
    "write",
    "writev",
    "sendmsg",
    "sendto",
    "sendmmsg",
    "sendfile",
    "splice",
    "pwritev2",
]
RECEIVES = ["recv", "read", "readv", "recvmsg", "recvfrom", "recvmmsg", "splice", "preadv2"]
PIECES = 3
MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC = 0x40, 2, 0x20
_SPLICE_NONBLOCK = 2
_SIOCOUTQNSD = 0x894B
_SYS_IOCTL = {"x86_64": 16, "aarch64": 29}[os.uname().machine]


Send = Callable[[int], Result]


def prepare_send(how: str, direction: str, position: int, size: int, flags: int) -> Send:
    """The call with its payload at hand, so that a signal soon after can't come too early."""
    if how == "sendfile":
        start = position % len(PERIODS[direction])
        file = os.memfd_create("payload")
        os.write(file, payload(direction, position - start, start + size))
        return lambda fd: _send_file(fd, file, start, size)
    data = payload(direction, position, size)
    if how == "splice":
        return lambda fd: _send_by_pipe(fd, data, flags)
    buffer = ctypes.create_string_buffer(data, max(1, size))
    return lambda fd: _send_buffer(fd, how, buffer, size, flags)


def _send_buffer(
    fd: int, how: str, buffer: ctypes.Array[ctypes.c_char], size: int, flags: int
) -> Result:
    if how == "write":
        return call("write", fd, buffer, size)
    if how == "send":
        return call("send", fd, buffer, size, flags)
    if how == "sendto":
        return call("sendto", fd, buffer, size, flags, None, 0)
    pieces = vector(buffer, split(size, PIECES))
    if how == "writev":
        return call("writev", fd, pieces, PIECES)
    if how == "pwritev2":
        return call("pwritev2", fd, pieces, PIECES, ctypes.c_long(-1), 0)
    if how == "sendmsg":
        header = Msghdr(iov=pieces, iovlen=PIECES)
        return call("sendmsg", fd, ctypes.byref(header), flags)
    return _send_messages(fd, pieces, flags)


def _send_messages(fd: int, pieces: ctypes.Array[Iovec], flags: int) -> Result:
    messages = (Mmsghdr * PIECES)()
    for message, piece in zip(messages, pieces, strict=True):
        message.header = Msghdr(iov=ctypes.pointer(piece), iovlen=1)
    sent = call("sendmmsg", fd, messages, PIECES, flags)
    return sent if isinstance(sent, str) else sum(m.size for m in messages[:sent])


def _send_file(fd: int, file: int, start: int, size: int) -> Result:
    try:
        offset = ctypes.c_long(start)
        return call("sendfile", fd, file, ctypes.byref(offset), ctypes.c_size_t(size))
    finally:
        os.close(file)


def _send_by_pipe(fd: int, data: bytes, flags: int) -> Result:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 18)
    option = _SPLICE_NONBLOCK if flags & MSG_DONTWAIT else 0
    try:
        os.write(write, data) if data else None
        os.close(write)
        sent = 0
        while True:
            moved = call("splice", read, None, fd, None, ctypes.c_size_t(len(data)), option)
            if isinstance(moved, str):
                return sent or moved
            sent += moved
            if moved == 0 or sent == len(data):
                return sent
    finally:
        os.close(read)


class Received:
    """What a receive returned, and what else the program can see of it."""

    def __init__(self, result: Result, data: bytes = b"", seen: str = "") -> None:
        self.result = result
        self.data = data
        self.seen = seen


def receive(fd: int, how: str, size: int, flags: int) -> Received:
    if how == "splice":
        return _receive_by_pipe(fd, size, flags)
    buffer = ctypes.create_string_buffer(max(1, size))
    seen = ""
    pieces = vector(buffer, split(size, PIECES))
    if how == "read":
        result = call("read", fd, buffer, size)
    elif how == "recv":
        result = call("recv", fd, buffer, size, flags)
    elif how == "recvfrom":
        name, length = ctypes.create_string_buffer(128), ctypes.c_uint(128)
        result = call("recvfrom", fd, buffer, size, flags, name, ctypes.byref(length))
        seen = f"address of {length.value}" if result != -1 and isinstance(result, int) else ""
    elif how == "readv":
        result = call("readv", fd, pieces, PIECES)
    elif how == "preadv2":
        result = call("preadv2", fd, pieces, PIECES, ctypes.c_long(-1), 0)
    elif how == "recvmsg":
        name, control = ctypes.create_string_buffer(128), ctypes.create_string_buffer(64)
        header = Msghdr(
            ctypes.addressof(name), 128, pieces, PIECES, ctypes.addressof(control), 64, 0x7F
        )
        result = call("recvmsg", fd, ctypes.byref(header), flags)
        if isinstance(result, int):
            seen = f"flags {header.flags:#x} name {header.namelen} control {header.controllen}"
    else:
        return _receive_messages(fd, buffer, pieces, flags)
    got = result if isinstance(result, int) else 0
    return Received(result, buffer.raw[: min(got, size)], seen)


def _receive_messages(
    fd: int, buffer: ctypes.Array[ctypes.c_char], pieces: ctypes.Array[Iovec], flags: int
) -> Received:
    messages = (Mmsghdr * PIECES)()
    for message, piece in zip(messages, pieces, strict=True):
        message.header = Msghdr(iov=ctypes.pointer(piece), iovlen=1)
    count = call("recvmmsg", fd, messages, PIECES, flags, None)
    if isinstance(count, str):
        return Received(count)
    sizes = [int(message.size) for message in messages[:count]]
    data = b"".join(
        ctypes.string_at(piece.base, min(size, piece.size))
        for piece, size in zip(pieces, sizes, strict=False)
        if size
    )
    return Received(sum(sizes), data, f"messages of {sizes}")


def unread(fd: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def _receive_by_pipe(fd: int, size: int, flags: int) -> Received:
    """Splices until `size` bytes have come or no more are there: TCP leaves open how many
    one splice moves."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 18)
    option = _SPLICE_NONBLOCK if flags & MSG_DONTWAIT else 0
    data = b""
    try:
        while True:
            left = ctypes.c_size_t(size - len(data))
            moved = call("splice", fd, None, write, None, left, option)
            if isinstance(moved, str):
                return Received(len(data) or moved, data)
            data += os.read(read, moved) if moved else b""
            if moved == 0 or len(data) == size or not unread(fd):
                return Received(len(data), data)
    finally:
        os.close(read)
        os.close(write)


def fill(fd: int, direction: str, position: int) -> int:
    """Sends without waiting until nothing has gone for a while; how many bytes went."""
    start, idle = position, 0
    while idle < 4:
        sent = prepare_send("send", direction, position, 1 << 16, MSG_DONTWAIT)(fd)
        if isinstance(sent, int):
            position, idle = position + sent, 0
        elif sent == "EAGAIN":
            time.sleep(0.003)
            idle += 1
        else:
            break
    return position - start


def drain(fd: int, direction: str, position: int) -> tuple[int, str]:
    """Takes all that is there: how many bytes, and what then came instead of bytes."""
    start, idle = position, 0
    while idle < 2:
        got = receive(fd, "recv", 1 << 20, MSG_DONTWAIT)
        if got.data:
            if got.data != payload(direction, position, len(got.data)):
                return position - start, "wrong bytes"
            position, idle = position + len(got.data), 0
        elif got.result == "EAGAIN":
            time.sleep(0.002)
            idle += 1
        else:
            return position - start, str(got.result)
    return position - start, "more may come"


HELD = 0.6
"""Seconds to settle for, of bytes that wait for more."""
_SHOWN = 0.25
"""After so many they are shown all the same, tcp(7)."""


def settle(fd: int, seconds: float) -> None:
    """Waits until TCP has sent what it was given. Past the library, so that nothing of it
    is set in motion: and of what is held back in a ring the kernel knows nothing."""
    if seconds >= HELD:
        time.sleep(_SHOWN)
    queued = ctypes.c_int(0)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if LIBC.syscall(_SYS_IOCTL, fd, _SIOCOUTQNSD, ctypes.byref(queued)) == -1:
            return
        if queued.value == 0:
            return
        time.sleep(0.0005)
