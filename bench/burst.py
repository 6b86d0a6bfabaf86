"""How late the first messages after a burst are, from a server that has the burst's sockets in one
epoll set; microseconds, medians of eight bursts.

    loopfuse run -- build/dev/measure server over=tcp at=0 work=many size=64    # prints its port
    loopfuse run -- python bench/burst.py PORT CONNECTIONS
"""

from __future__ import annotations

import socket
import statistics
import sys
import time

WARM_UP_SECONDS, BURSTS, MESSAGES, SHOWN = 5.0, 8, 40, 20
MESSAGE = b"x" * 64


def exchange(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.sendall(MESSAGE)
    for connection in connections:
        left = len(MESSAGE)
        while left:
            left -= len(connection.recv(left))


def after_a_burst(connections: list[socket.socket]) -> list[float]:
    exchange(connections)
    exchange(connections)
    time.sleep(0.02)
    took = []
    for _ in range(MESSAGES):
        start = time.perf_counter()
        exchange(connections[:1])
        took.append((time.perf_counter() - start) * 1e6)
        time.sleep(0.002)
    return took


def main(port: int, count: int) -> None:
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    end = time.monotonic() + WARM_UP_SECONDS
    while time.monotonic() < end:
        exchange(connections)
    rounds = [after_a_burst(connections) for _ in range(BURSTS)]
    medians = [statistics.median(messages) for messages in zip(*rounds, strict=True)]
    print("the first", SHOWN, *(f"{median:.0f}" for median in medians[:SHOWN]))


main(int(sys.argv[1]), int(sys.argv[2]))
