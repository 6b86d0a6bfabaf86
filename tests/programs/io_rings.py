"""io_urings for programs of tests: by liburing, and by system calls."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import struct
import sys

X86 = os.uname().machine == "x86_64"
CLOSE, DUP3, CLOSE_RANGE = (3, 292, 436) if X86 else (57, 24, 436)
SETUP, ENTER, REGISTER = 425, 426, 427
OP_NOP, OP_SENDMSG, OP_ACCEPT, OP_CLOSE, OP_READ, OP_RECV, OP_EPOLL_CTL = 0, 9, 13, 19, 22, 27, 29
FIXED_FILE, IO_LINK, SQPOLL, GETEVENTS = 1, 4, 2, 1
CTL_ADD, CTL_DEL, CTL_MOD = 1, 2, 3
REGISTER_FILES = 2
ENTRIES, RING_SIZE, ENTRY_SIZE = 8, 256, 64
ENTRY_OFFSET = 0x10000000
EVENT = "=IQ" if X86 else "=I4xQ"  # packed there alone, epoll_ctl(2)
libc = ctypes.CDLL(None, use_errno=True)
_kept: list[object] = []


def no_ring(number: int) -> None:
    print("no io_uring here:", os.strerror(number))
    sys.exit()


def entry(
    op: int, fd: int, flags: int = 0, at: int = 0, size: int = 0, offset: int = 0, mark: int = 0
) -> bytes:
    packed = struct.pack("=BBHiQQIIQ", op, flags, 0, fd, offset, at, size, 0, mark)
    return packed.ljust(ENTRY_SIZE, b"\0")


def control(set_: int, op: int, fd: int, mark: int = 0) -> bytes:
    """epoll_ctl of input, as an entry."""
    wanted = ctypes.create_string_buffer(struct.pack(EVENT, select.EPOLLIN, fd))
    _kept.append(wanted)
    return entry(OP_EPOLL_CTL, set_, 0, ctypes.addressof(wanted), op, fd, mark)


class Ring:
    """A ring of liburing's, which is asked for one thing at a time."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("liburing.so.2", ctypes.RTLD_GLOBAL)
        except OSError:
            print("no liburing here")
            sys.exit()
        # By name among all symbols, as a program that is linked with it calls it.
        self.names = ctypes.CDLL(None)
        self.memory = ctypes.create_string_buffer(RING_SIZE)
        error = self.names.io_uring_queue_init(ENTRIES, self.memory, 0)
        if error:
            no_ring(-error)
        self._library.io_uring_get_sqe.restype = ctypes.c_void_p

    def prepare(self, asked: bytes) -> None:
        ctypes.memmove(self._library.io_uring_get_sqe(self.memory), asked, ENTRY_SIZE)

    def ask(self, asked: bytes) -> None:
        self.prepare(asked)
        assert self.names.io_uring_submit(self.memory) == 1

    def register(self, fd: int) -> None:
        assert self.names.io_uring_register_files(self.memory, struct.pack("i", fd), 1) == 0


class RingByNumber:
    """The same by system calls."""

    def __init__(self, flags: int = 0) -> None:
        params = ctypes.create_string_buffer(struct.pack("=III", 0, 0, flags), 120)
        self.fd = libc.syscall(SETUP, ENTRIES, params)
        if self.fd < 0:
            no_ring(ctypes.get_errno())
        _, self._tail, _, _, _, _, self._array = struct.unpack_from("=7I", params, 40)
        self._done, self._last, _, _, _, self._completions = struct.unpack_from("=6I", params, 80)
        size = max(self._array + 4 * ENTRIES, self._completions + 16 * 2 * ENTRIES)
        self._queue = mmap.mmap(self.fd, size)
        self._entries = mmap.mmap(self.fd, ENTRIES * ENTRY_SIZE, offset=ENTRY_OFFSET)

    def ask(self, *asked: bytes, wait: bool = True) -> list[int]:
        """What came of them, by their marks."""
        for one in asked:
            (tail,) = struct.unpack_from("=I", self._queue, self._tail)
            place = tail % ENTRIES
            self._entries[place * ENTRY_SIZE : (place + 1) * ENTRY_SIZE] = one
            struct.pack_into("=I", self._queue, self._array + 4 * place, place)
            struct.pack_into("=I", self._queue, self._tail, tail + 1)
        least, flags = (len(asked), GETEVENTS) if wait else (0, 0)
        assert libc.syscall(ENTER, self.fd, len(asked), least, flags, None, 0) == len(asked)
        return self.results()

    def results(self) -> list[int]:
        (done,) = struct.unpack_from("=I", self._queue, self._done)
        (last,) = struct.unpack_from("=I", self._queue, self._last)
        found = []
        for i in range(done, last):
            place = self._completions + 16 * (i % (2 * ENTRIES))
            found.append(struct.unpack_from("=Qi", self._queue, place))
        struct.pack_into("=I", self._queue, self._done, last)
        return [result for _, result in sorted(found)]

    def unmap(self) -> None:
        self._queue.close()
        self._entries.close()

    def close(self) -> None:
        self.unmap()
        assert libc.syscall(CLOSE, self.fd) == 0
