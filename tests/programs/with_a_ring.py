"""Both ends of a connection, in a process that has set up an io_uring or not.

By liburing, to read a file ("file") or to receive ("receive", "registered"); by system calls, to
read a file ("file-by-number"), to receive ("receive-by-number"), to add an end to an epoll set
("epoll"); or one that the kernel takes requests from by itself ("polled").
"""

import ctypes
import mmap
import os
import select
import socket
import struct
import sys
import tempfile
import time

from mapped import has_a_segment

X86 = os.uname().machine == "x86_64"
CLOSE = 3 if X86 else 57
EVENT = "=IQ" if X86 else "=I4xQ"  # packed there alone, epoll_ctl(2)
CTL_ADD = 1
SETUP, ENTER = 425, 426
OP_NOP, OP_READ, OP_RECV, OP_EPOLL_CTL = 0, 22, 27, 29
FIXED_FILE, SQPOLL, GETEVENTS = 1, 2, 1
ENTRIES, RING_SIZE, ENTRY_SIZE = 8, 256, 64
ENTRY_OFFSET = 0x10000000
libc = ctypes.CDLL(None, use_errno=True)


def no_ring(number: int) -> None:
    print("no io_uring here:", os.strerror(number))
    sys.exit()


def entry(op: int, fd: int, flags: int, at: int, size: int, offset: int = 0) -> bytes:
    return struct.pack("=BBHiQQII", op, flags, 0, fd, offset, at, size, 0).ljust(ENTRY_SIZE, b"\0")


class Ring:
    """A ring of liburing's, which is asked for one thing at a time."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("liburing.so.2", ctypes.RTLD_GLOBAL)
        except OSError:
            print("no liburing here")
            sys.exit()
        # By name among all symbols, as a program that is linked with it calls it.
        self._names = ctypes.CDLL(None)
        self._ring = ctypes.create_string_buffer(RING_SIZE)
        error = self._names.io_uring_queue_init(ENTRIES, self._ring, 0)
        if error:
            no_ring(-error)
        self._library.io_uring_get_sqe.restype = ctypes.c_void_p

    def ask(self, asked: bytes) -> None:
        ctypes.memmove(self._library.io_uring_get_sqe(self._ring), asked, ENTRY_SIZE)
        assert self._names.io_uring_submit(self._ring) == 1

    def register(self, fd: int) -> None:
        assert self._names.io_uring_register_files(self._ring, struct.pack("i", fd), 1) == 0


class RingByNumber:
    """The same by system calls."""

    def __init__(self, flags: int = 0) -> None:
        params = ctypes.create_string_buffer(struct.pack("=III", 0, 0, flags), 120)
        self._fd = libc.syscall(SETUP, ENTRIES, params)
        if self._fd < 0:
            no_ring(ctypes.get_errno())
        _, self._tail, _, _, _, _, self._array = struct.unpack_from("=7I", params, 40)
        self._done, self._last, _, _, _, self._completions = struct.unpack_from("=6I", params, 80)
        size = max(self._array + 4 * ENTRIES, self._completions + 16 * 2 * ENTRIES)
        self._queue = mmap.mmap(self._fd, size)
        self._entries = mmap.mmap(self._fd, ENTRIES * ENTRY_SIZE, offset=ENTRY_OFFSET)

    def ask(self, asked: bytes) -> int:
        """What came of it, by its completion's number."""
        (tail,) = struct.unpack_from("=I", self._queue, self._tail)
        place = tail % ENTRIES
        self._entries[place * ENTRY_SIZE : (place + 1) * ENTRY_SIZE] = asked
        struct.pack_into("=I", self._queue, self._array + 4 * place, place)
        struct.pack_into("=I", self._queue, self._tail, tail + 1)
        assert libc.syscall(ENTER, self._fd, 1, 0, 0, None, 0) == 1
        (done,) = struct.unpack_from("=I", self._queue, self._done)
        place = self._completions + 16 * (done % (2 * ENTRIES))
        if self._completed() == done:
            return 0  # not yet
        struct.pack_into("=I", self._queue, self._done, done + 1)
        result: int = struct.unpack_from("=Qi", self._queue, place)[1]
        return result

    def _completed(self) -> int:
        number: int = struct.unpack_from("=I", self._queue, self._last)[0]
        return number

    def close(self) -> None:
        self._queue.close()
        self._entries.close()
        assert libc.syscall(CLOSE, self._fd) == 0


def wait_for(buffer: "ctypes.Array[ctypes.c_char]", wanted: bytes) -> None:
    deadline = time.monotonic() + 10
    while buffer.raw != wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    print("it brought", buffer.raw)


def place() -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(5)


how = sys.argv[1]
if how == "polled":
    RingByNumber(SQPOLL)
elif how != "none":
    by_number = how == "epoll" or how.endswith("-by-number")
    ring = RingByNumber() if by_number else Ring()
if how.startswith("file"):
    with tempfile.TemporaryFile() as file:
        file.write(b"file")
        file.flush()
        buffer = place()
        ring.ask(entry(OP_READ, file.fileno(), 0, ctypes.addressof(buffer), 4))
        wait_for(buffer, b"file\0")
if how == "file-by-number":
    ring.close()
with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
if how == "epoll":
    epoll = select.epoll()
    wanted = ctypes.create_string_buffer(struct.pack(EVENT, select.EPOLLIN, server.fileno()))
    at = ctypes.addressof(wanted)
    add = entry(OP_EPOLL_CTL, epoll.fileno(), 0, at, CTL_ADD, server.fileno())
    print("added", ring.ask(add), ring.ask(add))

# On a busy machine the broker takes its time.
patience = 0.0 if "LOOPFUSE_BROKER" not in os.environ else 0.5 if how == "polled" else 10
deadline = time.monotonic() + patience
over = False
while not over:
    over = has_a_segment() or time.monotonic() > deadline
    for _ in range(100):
        client.send(b"x"), server.recv(1), server.send(b"y"), client.recv(1)
if how.startswith(("receive", "registered")):
    # A byte that lies in the ring when the kernel is asked to receive comes first.
    client.send(b"1")
    buffer = place()
    fd, flags = server.fileno(), 0
    if how == "registered":
        ring.register(fd)
        fd, flags = 0, FIXED_FILE
    ring.ask(entry(OP_RECV, fd, flags, ctypes.addressof(buffer), 1))
    client.send(b"2")
    wait_for(buffer, b"1\0\0\0\0")
    print("then came", server.recv(1))
if how == "epoll":
    print("before", epoll.poll(0), ring.ask(add))
    client.send(b"1")
    print("after", epoll.poll(10) == [(server.fileno(), select.EPOLLIN)])
print("done")
