"""What a connection takes whose server sends so many bytes and closes, and whose client connects,
asks and reads to the end; microseconds a connection. And how often a client that waits in epoll,
and begins once the server has closed, is woken, of that in vain.

    loopfuse run --eager -- python bench/closing.py BYTES CONNECTIONS
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time

PART = 1 << 18


def serve(listener: socket.socket, data: bytes) -> None:
    while True:
        connection, _ = listener.accept()
        if connection.recv(10):
            connection.sendall(data)
        connection.close()


def read_to_end(connection: socket.socket) -> int:
    count = 0
    while part := connection.recv(PART):
        count += len(part)
    return count


def asked(listener: socket.socket) -> socket.socket:
    connection = socket.create_connection(listener.getsockname())
    connection.send(b"go")
    return connection


def wake_ups(connection: socket.socket) -> tuple[int, int]:
    """All, and those in vain."""
    time.sleep(0.2)
    connection.setblocking(False)
    woken = vain = 0
    with select.epoll() as epoll:
        epoll.register(connection, select.EPOLLIN)
        while True:
            epoll.poll()
            woken += 1
            try:
                read_to_end(connection)
            except BlockingIOError:
                vain += 1
            else:
                return woken, vain


def main(size: int, connections: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            serve(listener, bytes(size))
        start = time.perf_counter()
        for _ in range(connections):
            with asked(listener) as connection:
                assert read_to_end(connection) == size
        took = (time.perf_counter() - start) / connections
        with asked(listener) as connection:
            woken, vain = wake_ups(connection)
        os.kill(child, 9)
        os.waitpid(child, 0)
    print(f"{size} bytes: {took * 1e6:.0f} us a connection; woken {woken} times, {vain} in vain")


main(int(sys.argv[1]), int(sys.argv[2]))
