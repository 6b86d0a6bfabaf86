"""Both ends of a connection, in a process that has set up an io_uring or not: by a system call
("ring"), by liburing to read a file ("file"), by liburing to receive ("receive", "registered")."""

import ctypes
import os
import socket
import struct
import sys
import tempfile
import time

from mapped import has_a_segment

SYS_IO_URING_SETUP = 425
OP_READ, OP_RECV, FIXED_FILE = 22, 27, 1
RING_SIZE, ENTRY_SIZE = 256, 64
libc = ctypes.CDLL(None, use_errno=True)


def no_ring(number: int) -> None:
    print("no io_uring here:", os.strerror(number))
    sys.exit()


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
        error = self._names.io_uring_queue_init(8, self._ring, 0)
        if error:
            no_ring(-error)
        self._library.io_uring_get_sqe.restype = ctypes.c_void_p

    def ask(self, op: int, fd: int, flags: int, size: int) -> "ctypes.Array[ctypes.c_char]":
        """A read or receive; where the bytes are to come."""
        buffer = ctypes.create_string_buffer(size)
        at = ctypes.addressof(buffer)
        entry = struct.pack("=BBHiQQII", op, flags, 0, fd, 0, at, size, 0).ljust(ENTRY_SIZE, b"\0")
        ctypes.memmove(self._library.io_uring_get_sqe(self._ring), entry, ENTRY_SIZE)
        assert self._names.io_uring_submit(self._ring) == 1
        return buffer

    def register(self, fd: int) -> None:
        assert self._names.io_uring_register_files(self._ring, struct.pack("i", fd), 1) == 0


def wait_for(buffer: "ctypes.Array[ctypes.c_char]", wanted: bytes) -> None:
    deadline = time.monotonic() + 10
    while buffer.raw != wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    print("it brought", buffer.raw)


how = sys.argv[1]
if how == "ring":
    if libc.syscall(SYS_IO_URING_SETUP, 4, ctypes.create_string_buffer(120)) < 0:
        no_ring(ctypes.get_errno())
elif how != "none":
    ring = Ring()
if how == "file":
    with tempfile.TemporaryFile() as file:
        file.write(b"file")
        file.flush()
        wait_for(ring.ask(OP_READ, file.fileno(), 0, 4), b"file")
with socket.create_server(("127.0.0.1", int(sys.argv[2]))) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()

# On a busy machine the broker takes its time.
patience = 0.0 if "LOOPFUSE_BROKER" not in os.environ else 0.5 if how == "ring" else 10
deadline = time.monotonic() + patience
over = False
while not over:
    over = has_a_segment() or time.monotonic() > deadline
    for _ in range(100):
        client.send(b"x"), server.recv(1), server.send(b"y"), client.recv(1)
if how in ("receive", "registered"):
    # A byte that lies in the ring when the kernel is asked to receive comes first.
    client.send(b"1")
    if how == "registered":
        ring.register(server.fileno())
        buffer = ring.ask(OP_RECV, 0, FIXED_FILE, 1)
    else:
        buffer = ring.ask(OP_RECV, server.fileno(), 0, 1)
    client.send(b"2")
    wait_for(buffer, b"1")
    print("then came", server.recv(1))
print("done")
