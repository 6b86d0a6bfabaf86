"""Where the memory of idle connections lies, by the kernel's own counts (/proc/meminfo):

python bench/memory.py 1000; loopfuse run -- python bench/memory.py 1000

Bytes a connection, both ends and the broker together. Let nothing else run: what others take or
give back meanwhile is counted as well.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

ROUNDS = 60
COUNTS = ("AnonPages", "Shmem", "SReclaimable", "SUnreclaim", "PageTables")


def counts() -> dict[str, int]:
    """Bytes of each kind, once things have calmed down."""
    time.sleep(3)
    lines = Path("/proc/meminfo").read_text().splitlines()
    words = dict(line.split(":") for line in lines)
    return {name: int(words[name].split()[0]) * 1024 for name in COUNTS}


def talk(socks: list[socket.socket], first: bool) -> None:
    """Enough calls for each to be fused."""
    for turn in range(2 * ROUNDS):
        for sock in socks:
            if (turn % 2 == 0) == first:
                sock.send(b"x")
            else:
                sock.recv(1)


def main() -> None:
    many = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 * many + 100, 3 * many + 100))
    listener = socket.create_server(("127.0.0.1", 0), backlog=many)
    begin, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(begin[0], 1)
        address = listener.getsockname()
        clients = [socket.create_connection(address) for _ in range(many)]
        talk(clients, first=True)
        os.write(done[1], b"x")
        signal.pause()
    before = counts()
    os.write(begin[1], b"x")
    servers = [listener.accept()[0] for _ in range(many)]
    talk(servers, first=False)
    os.read(done[0], 1)
    after = counts()
    maps = Path("/proc/self/maps").read_text().splitlines()
    fused = len({line.split()[4] for line in maps if "loopfuse-segment" in line})
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    parts = ", ".join(f"{name} {(after[name] - before[name]) // many:,}" for name in COUNTS)
    total = sum(after[name] - before[name] for name in COUNTS) // many
    print(f"{fused} of {many} fused; bytes a connection: {parts}, together {total:,}")


if __name__ == "__main__":
    main()
