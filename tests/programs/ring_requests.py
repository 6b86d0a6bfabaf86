"""What a program may ask an io_uring for while its sockets are fused, a scenario for each."""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
import time

import io_rings as rings
from io_rings import CTL_ADD, CTL_DEL, CTL_MOD, Ring, RingByNumber, control, entry, libc
from mapped import has_a_segment

Pair = tuple[socket.socket, socket.socket]
PATIENCE = 10.0


def connected(port: int = 0) -> Pair:
    with socket.create_server(("127.0.0.1", port)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


def fuse(client: socket.socket, server: socket.socket, patience: float = PATIENCE) -> None:
    """Until they are; without the library, and where they can't be, for a moment."""
    deadline = time.monotonic() + (patience if "LOOPFUSE_BROKER" in os.environ else 0)
    over = False
    while not over:
        over = has_a_segment() or time.monotonic() > deadline
        for _ in range(100):
            client.send(b"x"), server.recv(1), server.send(b"y"), client.recv(1)


def fused() -> Pair:
    pair = connected()
    fuse(*pair)
    return pair


def bytes_of(packed: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(packed, len(packed))


def controls(order: str) -> None:
    """Adds, deletes and modifies an entry of an epoll set: each is answered by what was before."""
    ring, epoll, (client, server) = RingByNumber(), select.epoll(), fused()
    ops = {"a": CTL_ADD, "d": CTL_DEL, "m": CTL_MOD}
    for letter in order:
        print(letter, ring.ask(control(epoll.fileno(), ops[letter], server.fileno())))
    client.send(b"1")
    print(epoll.poll(0.5) == [(server.fileno(), select.EPOLLIN)])


def nested() -> None:
    """A set goes into another one."""
    ring, inner, outer, (client, server) = RingByNumber(), select.epoll(), select.epoll(), fused()
    inner.register(server, select.EPOLLIN)
    print(ring.ask(control(outer.fileno(), CTL_ADD, inner.fileno())))
    client.send(b"1")
    print(bool(outer.poll(PATIENCE)))


def chained() -> None:
    """An entry that is not done, since the one before it has failed."""
    ring, epoll, (client, server) = RingByNumber(), select.epoll(), fused()
    failing = entry(rings.OP_READ, 999, rings.IO_LINK, 0, 1, mark=1)
    print(ring.ask(failing, control(epoll.fileno(), CTL_ADD, server.fileno(), mark=2)))
    client.send(b"1")
    print(epoll.poll(0.2))


def passed() -> None:
    """A message hands the socket on."""
    ring, (client, server) = RingByNumber(), fused()
    ours, theirs = socket.socketpair()
    receiver = (
        "import socket, sys\n"
        "messages = socket.socket(fileno=int(sys.argv[1]))\n"
        "_, (fd,), _, _ = socket.recv_fds(messages, 1, 1)\n"
        "print(socket.socket(fileno=fd).recv(5), flush=True)\n"
    )
    command = [sys.executable, "-c", receiver, str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    byte = bytes_of(b"z")
    pieces = bytes_of(struct.pack("=QQ", ctypes.addressof(byte), 1))
    rights = struct.pack("=Qiii4x", 20, socket.SOL_SOCKET, socket.SCM_RIGHTS, server.fileno())
    ancillary = bytes_of(rights)
    places = ctypes.addressof(pieces), 1, ctypes.addressof(ancillary), len(rights)
    message = bytes_of(struct.pack("=QIIQQQQi4x", 0, 0, 0, *places, 0))
    print(ring.ask(entry(rings.OP_SENDMSG, ours.fileno(), 0, ctypes.addressof(message), 1)))
    client.send(b"hello")
    print(process.wait(PATIENCE))


def closed() -> None:
    """A ring closes the socket, and gives its number to another one."""
    ring, epoll, (client, server) = RingByNumber(), select.epoll(), fused()
    epoll.register(client, select.EPOLLIN)
    listener = socket.create_server(("127.0.0.1", 0))
    later = socket.create_connection(listener.getsockname())
    number = client.detach()
    print(ring.ask(entry(rings.OP_CLOSE, number)), server.recv(1))
    (again,) = ring.ask(entry(rings.OP_ACCEPT, listener.fileno()))
    print(again == number)
    epoll.register(again, select.EPOLLIN)
    later.send(b"new")
    print(epoll.poll(PATIENCE) == [(number, select.EPOLLIN)], socket.socket(fileno=again).recv(5))


def forked() -> None:
    """A child of a fork that the C library's handlers don't hear of asks, too."""
    ring, (client, server) = RingByNumber(), fused()
    pid = libc._Fork() if hasattr(libc, "_Fork") else os.fork()
    if pid == 0:
        os.write(1, b"child %r\n" % ring.ask(entry(rings.OP_NOP, -1)))
        os._exit(0)
    print(os.waitpid(pid, 0)[1])
    client.send(b"1")
    print(server.recv(1))


def by_its_parts() -> None:
    """liburing's queue, but handed over by io_uring_enter."""
    ring, (client, server) = Ring(), fused()
    buffer = bytes_of(b"\0" * 4)
    ring.prepare(entry(rings.OP_RECV, server.fileno(), 0, ctypes.addressof(buffer), 4))
    (tail,) = struct.unpack_from("=Q", ring.memory, 8)
    (fd,) = struct.unpack_from("=i", ring.memory, 196)
    ctypes.c_uint.from_address(tail).value = 1
    print(ring.names.io_uring_enter(fd, 1, 0, 0, None))
    client.send(b"hell")
    deadline = time.monotonic() + PATIENCE
    while buffer.raw != b"hell" and time.monotonic() < deadline:
        time.sleep(0.001)
    print(buffer.raw)


def gone(how: str) -> None:
    """A ring that is closed lets go of the files that it keeps: a pipe's reader sees the end."""
    ring = RingByNumber()
    out, into = os.pipe()
    kept = bytes_of(struct.pack("i", into))
    print(libc.syscall(rings.REGISTER, ring.fd, rings.REGISTER_FILES, kept, 1))
    os.close(into)
    ring.unmap()
    if how == "close":
        libc.syscall(rings.CLOSE, ring.fd)
    elif how == "close_range":
        libc.syscall(rings.CLOSE_RANGE, ring.fd, ring.fd, 0)
    elif how == "dup3":
        libc.syscall(rings.DUP3, os.open("/dev/null", os.O_RDONLY), ring.fd, 0)
    print(bool(select.select([out], [], [], PATIENCE)[0]))


if __name__ == "__main__":
    scenario, *words = sys.argv[1:]
    globals()[scenario](*words)
