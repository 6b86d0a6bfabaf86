"""Gets one value from memcached, over and over, and looks at it: memcached_client.py PORT
SECONDS. Prints how often and in how many seconds, as JSON."""

from __future__ import annotations

import json
import socket
import sys
import time

_VALUE = b"v" * 100
_ANSWER = b"VALUE key 0 100\r\n" + _VALUE + b"\r\nEND\r\n"
_AT_ONCE = 32


def _ask(port: int, seconds: float) -> tuple[int, float]:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"set key 0 0 100\r\n" + _VALUE + b"\r\n")
        if connection.recv(100) != b"STORED\r\n":
            sys.exit("memcached did not store the value")
        start, count = time.monotonic(), 0
        while time.monotonic() < start + seconds:
            for _ in range(_AT_ONCE):
                connection.sendall(b"get key\r\n")
                answer = connection.recv(4096)
                while len(answer) < len(_ANSWER):
                    answer += connection.recv(4096)
                if answer != _ANSWER:
                    sys.exit("memcached gave back something else than was stored")
            count += _AT_ONCE
        return count, time.monotonic() - start


if __name__ == "__main__":
    count, took = _ask(int(sys.argv[1]), float(sys.argv[2]))
    print(json.dumps({"count": count, "seconds": took}))
