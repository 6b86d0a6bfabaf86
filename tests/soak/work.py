"""One kind of programs at work: started again whenever they end, and judged by how they did."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from broker_fixtures import eventually
from holdings import Holdings, holdings_of, processes_in
from sessions import Session, free_port, stop_group
from soak.kinds import Kind

GONE = 3
"""Exit status of checker.py whose server does not answer any more."""
SAY_THAT_IT_DIED = (GONE, 1, -signal.SIGPIPE)
"""Exit statuses of clients that have lost their server, other programs than checker.py included."""
FINDING = re.compile("wrong|behind|Timeout|after the last")
"""What they say when it is not that."""
LONGEST = 150.0
"""Seconds beyond which a client hangs."""
READY = 60.0
NOTICE = 20.0
"""Seconds within which a server that serves one client ends, too."""


@dataclass
class Tally:
    """What happened. `unexplained` must stay empty."""

    counts: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)


@dataclass
class Client:
    process: subprocess.Popen[bytes]
    command: Callable[[int, int], list[str]]
    said: Path
    began: float
    deaths: int
    """Of its server, when it began."""
    killed: bool = False


class Work:
    """`sessions`: each program runs in one of them, drawn anew. `folder`: for what they say."""

    def __init__(
        self,
        kind: Kind,
        sessions: list[Session],
        folder: Path,
        tally: Tally,
        rng: random.Random,
    ) -> None:
        self.kind = kind
        self.port = free_port()
        self.clients: list[Client] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.before = Holdings(0, 0, 0)
        """What the first server held before any client came."""
        self._sessions = sessions
        self._tally = tally
        self._rng = rng
        self._deaths = 0
        self._killed = False
        self._used = False
        """It has had a client."""
        self._stack = ExitStack()
        self._server_said = folder / f"{kind.name}-server"
        self._client_said = folder / f"{kind.name}-client"

    # -- server ---------------------------------------------------------------------

    def start(self) -> None:
        session = self._rng.choice(self._sessions)
        command = self.kind.server(self.port)
        self._killed = self._used = False
        with self._server_said.open("wb") as errors:
            running = session.server(command, self.port, stderr=errors, cwd=self.kind.folder)
            self.server = self._stack.enter_context(running)
        eventually(lambda: self.kind.ready(self.port), f"{self.kind.name} is ready", READY)
        if not self._tally.counts["clients started"]:  # else some may be there already
            self.before = self.holdings()
        self._tally.counts["servers started"] += 1

    def holdings(self) -> Holdings:
        """What the server's processes hold now."""
        assert self.server is not None
        return holdings_of(*processes_in(self.server.pid))

    def holds_no_connection(self) -> bool:
        assert self.server is not None
        return self.holdings().is_back_at(self.before, len(processes_in(self.server.pid)))

    def kill_server(self) -> bool:
        """All of its processes at once. False: it has ended already."""
        if self.server is None or self.server.poll() is not None:
            return False
        self._killed = True
        self._deaths += 1
        os.killpg(self.server.pid, self.kind.kill)
        self.server.wait(READY)
        self._tally.counts["servers killed"] += 1
        return True

    def _look_after_server(self) -> None:
        """Starts it again if it has ended, as it may."""
        assert self.server is not None
        status = self.server.poll()
        if self.kind.once and self._used and not self.clients:
            status = self._last_words()
        if status is None or (self.kind.once and self.clients):
            return
        may = self._killed or (self.kind.once and status == 0)
        if not may:
            said = self._server_said.read_text(errors="replace")
            self._complain(f"the server ended with {status}", said)
            self._deaths += 1
        self._stack.close()
        self.start()

    def _last_words(self) -> int:
        """The exit status of a server whose only client has ended."""
        assert self.server is not None
        try:
            return self.server.wait(NOTICE)
        except subprocess.TimeoutExpired:
            if self._killed and self.holds_no_connection():
                return -1  # its client was killed before it had connected
            self._complain("the server hangs", stack_of(self.server.pid))
            return -1

    # -- clients --------------------------------------------------------------------

    def kill_client(self) -> bool:
        """False: none runs."""
        running = [client for client in self.clients if client.process.poll() is None]
        if not running:
            return False
        client = self._rng.choice(running)
        client.killed = True
        if self.kind.once:
            self._killed = True  # its server fails, too
        os.killpg(client.process.pid, signal.SIGKILL)
        self._tally.counts["clients killed"] += 1
        return True

    def tend(self, *, go_on: bool) -> None:
        """Judges who has ended; starts them again, if it is to `go_on`."""
        for client in list(self.clients):
            if client.process.poll() is not None:
                self.clients.remove(client)
                self._judge(client)
            elif time.monotonic() - client.began > LONGEST:
                self.clients.remove(client)
                self._complain(f"{client.process.args!r} hangs", stack_of(client.process.pid))
                stop_group(client.process)
        if not go_on:
            return
        self._look_after_server()
        for command in self.kind.clients:
            if not any(client.command is command for client in self.clients):
                self._start_client(command)

    def _start_client(self, command: Callable[[int, int], list[str]]) -> None:
        number = self.kind.clients.index(command)
        said = self._client_said.with_suffix(f".{number}")
        session = self._rng.choice(self._sessions)
        with said.open("wb") as output:
            process = subprocess.Popen(
                command(self.port, self._rng.randrange(1 << 30)),
                env=session.environment | self.kind.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        now = time.monotonic()
        self._used = True
        self.clients.append(Client(process, command, said, now, self._deaths))
        self._tally.counts["clients started"] += 1

    def _judge(self, client: Client) -> None:
        said, status = client.said.read_text(errors="replace"), client.process.returncode
        counts = self._tally.counts
        found = re.search(r"(\d+) connections, (\d+) bytes", said)
        if found:
            counts["connections of checking clients"] += int(found[1])
            counts["bytes compared"] += int(found[2])
        server_died = client.deaths != self._deaths
        if client.killed and status == -signal.SIGKILL:
            return
        if status == 0:
            server = self._last_words() if self.kind.once else 0
            if server == 0 or self._killed:
                counts["clients that ended well"] += 1
                counts["bytes compared"] += self.kind.compared if server == 0 else 0
        elif server_died and status in SAY_THAT_IT_DIED and not FINDING.search(said):
            counts["clients that lost their server"] += 1
        else:
            died = "killed" if server_died else "alive"
            what = f"{client.process.args!r} ended with {status}, its server {died}"
            self._complain(what, said)

    def _complain(self, what: str, said: str) -> None:
        self._tally.unexplained.append(f"{self.kind.name}: {what}\n{said[-4000:]}")

    # -- the end --------------------------------------------------------------------

    def stop(self) -> None:
        for client in self.clients:
            stop_group(client.process)
        self._stack.close()


def stack_of(pid: int) -> str:
    """Where its threads stand, of the whole group."""
    said = []
    for process in processes_in(pid):
        command = ["gdb", "-p", str(process), "-batch", "-ex", "thread apply all bt 14"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        said.append(f"process {process}:\n{done.stdout}")
    return "\n".join(said)
