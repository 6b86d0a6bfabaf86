"""Two programs that talk without end, and what the broker says of their connection."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from broker_fixtures import eventually
from conftest import PROGRAMS
from loopfuse._messages import Row
from sessions import Session, listens


class Talk:
    """A conversation under way."""

    def __init__(self, session: Session, port: int) -> None:
        self._session = session
        self.port = port

    @property
    def row(self) -> Row | None:
        """Its row in `ps`; None: the broker has not heard of it."""
        assert self._session.broker is not None
        rows = [one for one in self._session.broker.rows() if one.server.port == self.port]
        return rows[-1] if rows else None

    def becomes(self, state: str, reason: str | None = None) -> Row:
        """Waits for that state, and for that reason if there is one."""

        def is_so() -> bool:
            row = self.row
            return row is not None and row.state == state and reason in (None, row.reason)

        eventually(is_so, f"port {self.port} is {state} ({reason}): {self.row}")
        row = self.row
        assert row is not None
        return row


@contextmanager
def talk(session: Session, port: int, prefix: Sequence[str] = ()) -> Iterator[Talk]:
    """Has talked a few hundred times by the time it is yielded."""
    command = [*prefix, *session.prefix, sys.executable, str(PROGRAMS / "talker.py")]
    processes: list[subprocess.Popen[str]] = []

    def start(side: str) -> subprocess.Popen[str]:
        process = session.start([*command, side, str(port)])
        processes.append(process)
        return process

    try:
        server = start("server")
        eventually(lambda: listens(port, server.pid), f"port {port} is listened at")
        client = start("client")
        for process in (server, client):
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["begun\n", "talking\n"]
        yield Talk(session, port)
        assert [process.poll() for process in processes] == [None, None], "they still talk"
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=10)
