"""Two parties that live on from connection to connection, and one connection of theirs."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loopfuse._messages import Row
from sessions import Session

PARTY = Path(__file__).with_name("option_party.py")
PATIENCE = 20.0

Step = list[Any]


class Party:
    """A process that does as it is told."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._start()

    def _start(self) -> None:
        self._process = self._session.start([sys.executable, str(PARTY)])

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, *steps: Step) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(steps) + "\n")
        self._process.stdin.flush()

    def hear(self) -> list[Any]:
        assert self._process.stdout
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        assert ready, "a party does not answer"
        line = self._process.stdout.readline()
        assert line, f"a party ended with {self._process.wait()}"
        answer: list[Any] = json.loads(line)
        return answer

    def ask(self, *steps: Step) -> list[Any]:
        self.tell(*steps)
        return self.hear()

    def do(self, *step: Any) -> Any:
        return self.ask(list(step))[0]

    def restart(self) -> None:
        """Kills it, with its sockets as they are; another one starts."""
        self.stop()
        self._start()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()


class TwoEnds:
    """Client and server under one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.client, self.server = Party(session), Party(session)

    @property
    def fuses(self) -> bool:
        return self.session.broker is not None

    def stop(self) -> None:
        self.client.stop()
        self.server.stop()

    @contextmanager
    def connection(
        self,
        host: str = "127.0.0.1",
        to: str = "",
        listener: tuple[Step, ...] = (),
        client: tuple[Step, ...] = (),
    ) -> Iterator[Connection]:
        """The sockets are "l", "s" and "c"; each gets its steps before listen or connect."""
        try:
            yield from self._connection(host, to or host, listener, client)
        except BaseException:
            self.client.restart()  # out of step
            self.server.restart()
            raise

    def _connection(
        self, host: str, to: str, listener: tuple[Step, ...], client: tuple[Step, ...]
    ) -> Iterator[Connection]:
        prepared = self.server.ask(["new", "l", host], *listener, ["listen", "l", host])
        prepared_client = self.client.ask(["new", "c", to], *client)
        self.server.tell(["accept", "s", "l"])
        own = self.client.do("connect", "c", to, prepared[-1])
        self.server.hear()
        connection = Connection(self, own, prepared[-1])
        connection.prepared = [*prepared[1:-1], *prepared_client[1:]]
        yield connection
        self.client.ask(["close", "c"])
        self.server.ask(["close", "s"], ["close", "l"])


class Connection:
    def __init__(self, ends: TwoEnds, client_port: int, server_port: int) -> None:
        self._ends = ends
        self._ports = (client_port, server_port)
        self.client, self.server = ends.client, ends.server
        self.prepared: list[Any] = []
        """What the steps before listen and connect came to."""

    @property
    def row(self) -> Row | None:
        """What the broker knows of it."""
        assert self._ends.session.broker
        for row in self._ends.session.broker.rows():
            if (row.client.port, row.server.port) == self._ports:
                return row
        return None

    def both(self, client: list[Step], server: list[Step]) -> tuple[list[Any], list[Any]]:
        """At the same time."""
        self.client.tell(*client)
        self.server.tell(*server)
        return self.client.hear(), self.server.hear()

    def warm(self, reason: str | None = None) -> None:
        """Talks until it is fused both ways, or until the broker names `reason`."""
        if not self._ends.fuses:
            return
        deadline = time.monotonic() + PATIENCE
        while not self._is_settled(reason):
            assert time.monotonic() < deadline, f"wanted {reason or 'fused'}, is {self.row}"
            self.both([["rounds", "c", 12]], [["echo", "s", 12]])

    def _is_settled(self, reason: str | None) -> bool:
        row = self.row
        if row is None:
            return False
        if reason:
            return row.reason == reason
        assert row.reason in (None, "none"), row
        return row.state == "fused" and min(row.bytes_to_server, row.bytes_to_client) > 0

    @property
    def in_rings(self) -> int:
        """Payload that went through the rings so far, both ways; 0 on plain TCP."""
        row = self.row if self._ends.fuses else None
        return row.bytes_to_server + row.bytes_to_client if row else 0
