"""Both parties of tests/programs/tapped.py, under a session."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from conftest import PROGRAMS
from sessions import Session, free_port, stop_group

TAPPED = PROGRAMS / "tapped.py"


class Parties:
    """The two processes."""

    def __init__(
        self, session: Session, way: str, server: Sequence[str], client: Sequence[str]
    ) -> None:
        self.port = free_port()
        self.server, self.client = (
            session.start(
                [*session.prefix, *prefix, sys.executable, str(TAPPED), side, str(self.port), way]
            )
            for side, prefix in (("server", server), ("client", client))
        )

    def await_pause(self) -> None:
        assert self.client.stdout is not None
        assert self.client.stdout.readline() == "paused\n"

    def go_on(self) -> None:
        assert self.client.stdin is not None
        self.client.stdin.write("\n")
        self.client.stdin.flush()

    def digests(self) -> tuple[str, str]:
        """What each says it sent: to the server, to the client."""
        server, _ = self.server.communicate(timeout=60)
        client, _ = self.client.communicate(timeout=60)
        assert self.server.returncode == self.client.returncode == 0
        return client.split()[-1], server.split()[-1]


@contextmanager
def parties(
    session: Session, way: str, server: Sequence[str] = (), client: Sequence[str] = ()
) -> Iterator[Parties]:
    """`server`, `client`: words before the command of each."""
    both = Parties(session, way, server, client)
    try:
        yield both
    finally:
        for process in (both.server, both.client):
            stop_group(process)
