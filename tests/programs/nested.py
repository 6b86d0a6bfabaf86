"""An epoll set that others poll: is there something in it whenever it is said to be readable?

Both ends share one CPU, so whoever is woken runs before the other goes on.
"""

import os
import select
import socket
import sys
import time

from mapped import has_a_segment

ROUNDS = 5


def client(address: tuple[str, int]) -> None:
    sock = socket.create_connection(address)
    deadline = time.monotonic() + (10 if "LD_PRELOAD" in os.environ else 0)
    fused = False
    while not fused and time.monotonic() < deadline:
        fused = has_a_segment()
        for _ in range(20):
            sock.send(b"w")
            sock.recv(1)
    sock.send(b"W")
    sock.recv(1)
    time.sleep(0.02)
    sock.sendall(b"abcd")
    sock.recv(1)


def round_of(listener: socket.socket) -> tuple[bool, bytes]:
    child = os.fork()
    if child == 0:
        client(listener.getsockname())
        os._exit(0)
    sock, _ = listener.accept()
    byte = b"w"
    while byte == b"w":
        byte = sock.recv(1)
        sock.send(byte)
    inner, outer = select.epoll(), select.poll()
    inner.register(sock, select.EPOLLIN)
    inner.poll(0)
    outer.register(inner, select.POLLIN)
    outer.poll(5000)
    found = bool(inner.poll(0))
    data = sock.recv(4)
    sock.send(b"x")
    os.waitpid(child, 0)
    return found, data


os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listening:
    for _ in range(ROUNDS):
        print(*round_of(listening))
