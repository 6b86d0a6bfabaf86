"""Asks a server the same thing over and over on one connection, and looks at each answer:
request_client.py memcached|http PORT|PATH SECONDS. A path is that of a unix socket. Prints how
often and in how many seconds, as JSON."""

from __future__ import annotations

import json
import socket
import sys
import time

_VALUE = b"v" * 100
_AT_ONCE = 32


def _connected(where: str) -> socket.socket:
    if where.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(where)
    else:
        connection = socket.create_connection(("127.0.0.1", int(where)), 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(None)
    return connection


def _memcached(connection: socket.socket) -> tuple[bytes, bytes]:
    """A request, and what it is to be answered with, once the value is stored."""
    connection.sendall(b"set key 0 0 100\r\n" + _VALUE + b"\r\n")
    if connection.recv(100) != b"STORED\r\n":
        sys.exit("memcached did not store the value")
    return b"get key\r\n", b"VALUE key 0 100\r\n" + _VALUE + b"\r\nEND\r\n"


def _http(connection: socket.socket) -> tuple[bytes, bytes]:
    """The same: the page with its headers, whose date is left out of what is compared."""
    request = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection.sendall(request)
    page = b""
    while b"\r\n\r\n" not in page or len(page) < _length_of(page):
        page += _received(connection)
    if not page.startswith(b"HTTP/1.1 200 "):
        sys.exit(f"the server answered {page[:40]!r}")
    return request, page


def _length_of(page: bytes) -> int:
    head = page.index(b"\r\n\r\n") + 4
    for line in page[:head].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return head + int(line.split(b":")[1])
    sys.exit("the page came without its length")


def _received(connection: socket.socket) -> bytes:
    piece = connection.recv(65536)
    if not piece:
        sys.exit("the server has closed the connection")
    return piece


def _without_date(answer: bytes) -> bytes:
    before, _, after = answer.partition(b"\r\nDate: ")
    return before + after.partition(b"\r\n")[2] if after else answer


def _ask(service: str, where: str, seconds: float) -> tuple[int, float]:
    with _connected(where) as connection:
        request, wanted = (_memcached if service == "memcached" else _http)(connection)
        compared = _without_date(wanted)
        start, count = time.monotonic(), 0
        while time.monotonic() < start + seconds:
            for _ in range(_AT_ONCE):
                connection.sendall(request)
                answer = connection.recv(65536)
                while len(answer) < len(wanted):
                    answer += _received(connection)
                if answer != wanted and _without_date(answer) != compared:
                    sys.exit("the server gave back something else than before")
            count += _AT_ONCE
        return count, time.monotonic() - start


if __name__ == "__main__":
    count, took = _ask(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    print(json.dumps({"count": count, "seconds": took}))
