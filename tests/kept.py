"""A connection between two programs of a test's choice, held until the test is over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from broker_fixtures import eventually
from conftest import PROGRAMS
from sessions import Session, free_port, listens, stop_group


class Kept(NamedTuple):
    """Ids of the two processes, and the port that the server listened at."""

    client: int
    server: int
    port: int


def _start(session: Session, *arguments: str) -> subprocess.Popen[str]:
    keeper = [sys.executable, str(PROGRAMS / "keeper.py")]
    return session.start([*session.prefix, *keeper, *arguments])


@contextmanager
def kept(client: Session, server: Session, rounds: int = 100) -> Iterator[Kept]:
    """A connection over which the client has made so many round trips of a byte."""
    port = free_port()
    started = []
    try:
        started.append(_start(server, "server", str(port)))
        eventually(lambda: listens(port), "the server listens")
        started.append(_start(client, "client", str(port), str(rounds)))
        for process in started:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield Kept(started[1].pid, started[0].pid, port)
    finally:
        for process in started:
            stop_group(process)
