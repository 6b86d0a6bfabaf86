"""Which programs the soak runs: a server, and the clients that talk to it."""

from __future__ import annotations

import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from conftest import PROGRAMS, tool
from daemons import (
    memcached_command,
    nginx_command,
    postgresql_command,
    postgresql_is_ready,
    redis_command,
)

FILES = ("1-1", "700-2", "20000-3", "900000-4", "4000000-5")
"""Of the web server: size and number, from which checker.py knows the content."""
STRESS_BYTES = 6_000_000
STRESS_CONNECTIONS = 3


@dataclass
class Kind:
    """A server and what its clients are started with, by port and seed."""

    name: str
    server: Callable[[int], list[str]]
    clients: list[Callable[[int, int], list[str]]]
    """One of each runs at a time."""
    once: bool = False
    """The server ends with its only client, and both tell."""
    compared: int = 0
    """Bytes that client and server together compared if both ended well; else checker.py says."""
    environment: dict[str, str] = field(default_factory=dict)
    ready: Callable[[int], bool] = lambda port: True
    kill: signal.Signals = signal.SIGKILL
    folder: str | None = None


def checker(kind: str, seconds: float) -> Callable[[int, int], list[str]]:
    script = str(PROGRAMS / "checker.py")
    return lambda port, seed: [sys.executable, script, kind, str(port), str(seed), str(seconds)]


def redis_load(port: int, seed: int) -> list[str]:
    """Many connections at once, pipelined or not; what it reads it only parses."""
    rng = random.Random(seed)
    command = [tool("redis-benchmark"), "-p", str(port), "-q", "-t", "set,get,lrange_100"]
    return [
        *command,
        "-c",
        str(rng.choice([1, 5, 50])),
        "-P",
        str(rng.choice([1, 16])),
        "-n",
        "20000",
    ]


def stress(programs: Path) -> Kind:
    binary, connections = str(programs / "stress"), str(STRESS_CONNECTIONS)
    return Kind(
        "stress",
        lambda port: [binary, "server", str(port), connections],
        [
            lambda port, seed: [
                *(binary, "client", str(port), connections, str(STRESS_BYTES), str(seed)),
            ]
        ],
        once=True,
        compared=2 * STRESS_BYTES * STRESS_CONNECTIONS,
    )


def kinds(programs: Path, folder: Path, cluster: Path | None, seconds: float) -> list[Kind]:
    """`seconds`: how long a client talks; `cluster`: of PostgreSQL, None: without it."""
    web = folder / "web"
    web.mkdir()
    for name in FILES:
        size, number = name.split("-")
        (web / name).write_bytes(random.Random(int(number)).randbytes(int(size)))
    echo = str(PROGRAMS / "asyncio_echo.py")
    found = [
        Kind(
            "redis",
            lambda port: redis_command(folder, port),
            [checker("redis", seconds), redis_load],
        ),
        Kind(
            "nginx",
            lambda port: nginx_command(web, port),
            [checker("http", seconds)],
            environment={"CHECKER_FILES": " ".join(FILES)},
        ),
        Kind("memcached", memcached_command, [checker("memcached", seconds)]),
        Kind(
            "asyncio",
            lambda port: [sys.executable, echo, "server", str(port)],
            [checker("echo", seconds)],
        ),
        stress(programs),
    ]
    if cluster is not None:
        found.append(
            Kind(
                "postgresql",
                lambda port: postgresql_command(cluster, port),
                [checker("postgresql", seconds)],
                ready=postgresql_is_ready,
                # Its children lead sessions of their own; so they all end at once.
                kill=signal.SIGQUIT,
                folder="/tmp",
            )
        )
    return found
