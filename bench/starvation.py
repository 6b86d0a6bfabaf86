"""python bench/starvation.py [PAIRS [SECONDS]]: how long others wait for a CPU beside plain TCP.

Pairs of processes send each other one byte there and back, as fast as they can; beside them a
process sleeps 10 ms at a time and says by how much it overslept at most, at each priority.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable

PRIORITIES: dict[str, Callable[[], object]] = {
    "ordinary": lambda: None,
    "nice -20": lambda: os.nice(-20),
    "SCHED_BATCH": lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    "SCHED_RR": lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)),
}


def forked(act: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    return pid


def pair(seconds: float) -> list[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        sock, _ = listener.accept()
        while byte := sock.recv(1):
            sock.send(byte)

    def ask() -> None:
        sock, end = socket.create_connection(listener.getsockname()), time.monotonic() + seconds
        while time.monotonic() < end:
            sock.send(b"x")
            sock.recv(1)

    pids = [forked(answer), forked(ask)]
    listener.close()
    return pids


def oversleeps(name: str, seconds: float) -> None:
    os.setsid()  # with autogroups, not one of them to the scheduler
    try:
        PRIORITIES[name]()
    except OSError as error:
        print(f"{name}: {error.strerror}", flush=True)
        return
    end, most = time.monotonic() + seconds, 0.0
    while (now := time.monotonic()) < end:
        time.sleep(0.01)
        most = max(most, time.monotonic() - now - 0.01)
    print(f"{name}: {most:.2f} s", flush=True)


def main() -> None:
    pairs, seconds = int((sys.argv[1:] or ["6"])[0]), float((sys.argv[2:] or ["5"])[0])
    for name in PRIORITIES:
        pids = [pid for _ in range(pairs) for pid in pair(seconds)]
        pids.append(forked(lambda name=name: oversleeps(name, seconds)))  # type: ignore[misc]
        for pid in pids:
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
