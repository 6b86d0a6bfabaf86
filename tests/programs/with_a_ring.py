"""Both ends of a connection, in a process that has set up an io_uring or not.

By liburing, to read a file ("file") or to receive ("receive", "registered"); by system calls, to
read a file ("file-by-number"), to receive ("receive-by-number"), to add an end to an epoll set
("epoll"); or one that the kernel takes requests from by itself ("polled").
"""

import ctypes
import select
import sys
import tempfile
import time

from io_rings import (
    CTL_ADD,
    FIXED_FILE,
    OP_READ,
    OP_RECV,
    SQPOLL,
    Ring,
    RingByNumber,
    control,
    entry,
)
from ring_requests import connected, fuse

Buffer = ctypes.Array[ctypes.c_char]


def wait_for(buffer: Buffer, wanted: bytes) -> None:
    deadline = time.monotonic() + 10
    while buffer.raw != wanted and time.monotonic() < deadline:
        time.sleep(0.001)
    print("it brought", buffer.raw)


how = sys.argv[1]
if how == "polled":
    RingByNumber(SQPOLL)
elif how != "none":
    by_number = how == "epoll" or how.endswith("-by-number")
    ring = RingByNumber() if by_number else Ring()
buffer = ctypes.create_string_buffer(5)
at = ctypes.addressof(buffer)
if how.startswith("file"):
    with tempfile.TemporaryFile() as file:
        file.write(b"file")
        file.flush()
        ring.ask(entry(OP_READ, file.fileno(), 0, at, 4))
        wait_for(buffer, b"file\0")
if how == "file-by-number":
    ring.close()
client, server = connected(int(sys.argv[2]))
if how == "epoll":
    epoll = select.epoll()
    add = control(epoll.fileno(), CTL_ADD, server.fileno())
    print("added", ring.ask(add), ring.ask(add))
fuse(client, server, 0.5 if how == "polled" else 10)
if how.startswith(("receive", "registered")):
    # A byte that lies in the ring when the kernel is asked to receive comes first.
    client.send(b"1")
    fd, flags = server.fileno(), 0
    if how == "registered":
        ring.register(fd)
        fd, flags = 0, FIXED_FILE
    asked = entry(OP_RECV, fd, flags, at, 1)
    ring.ask(asked, wait=False) if isinstance(ring, RingByNumber) else ring.ask(asked)
    client.send(b"2")
    wait_for(buffer, b"1\0\0\0\0")
    print("then came", server.recv(1))
if how == "epoll":
    print("before", epoll.poll(0), ring.ask(add))
    client.send(b"1")
    print("after", epoll.poll(10) == [(server.fileno(), select.EPOLLIN)])
print("done")
