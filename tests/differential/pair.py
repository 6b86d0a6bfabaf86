"""Two parties, as processes that a test drives step by step."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from sessions import Session

TESTS = Path(__file__).parent.parent
PATIENCE = 6.0

Answer = dict[str, Any]


class HungError(Exception):
    """A party does not answer."""


class PartyProcess:
    """Forks one process for each program; `ask` talks to that one."""

    def __init__(self, session: Session) -> None:
        self._process = subprocess.Popen(
            [*session.prefix, sys.executable, "-m", "differential.party"],
            env=session.environment | {"PYTHONPATH": str(TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._pid = 0
        self._unread = b""

    def start_program(self) -> None:
        self._pid = int(self.ask({"do": "start"})["pid"])

    def ask(self, request: dict[str, Any], seconds: float = PATIENCE) -> Answer:
        self.tell(request)
        return self.hear(seconds)

    def tell(self, request: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def hear(self, seconds: float = PATIENCE) -> Answer:
        """The next answer. Raises HungError."""
        assert self._process.stdout
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise HungError
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            assert part, f"a party ended with {self._process.wait()}"
            self._unread += part
        line, self._unread = self._unread.split(b"\n", 1)
        answer: Answer = json.loads(line)
        if isinstance(answer.get("result"), dict):
            raise AssertionError(answer["result"]["mistake"])
        return answer

    @property
    def alive(self) -> bool:
        """Does it still act in the program?"""
        return self._pid != 0

    def end_program(self) -> None:
        """Kills what is left of it, children included."""
        if not self._pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        while "ended" not in self.hear():
            pass
        self._pid = 0

    def stop(self) -> None:
        self.end_program()
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        assert self._process.stdout
        self._process.stdout.close()


class Pair:
    """Client and server of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.parties = {side: PartyProcess(session) for side in ("client", "server")}

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for party in self.parties.values():
            party.stop()
