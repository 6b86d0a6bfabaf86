"""What all judges need: to run a suite to its end, and to count what was fused meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

from sessions import Session


def run_suite(command: list[str], session: Session, directory: Path, limit: float) -> str:
    """In a process group of its own, of which nothing is left; what it said."""
    with subprocess.Popen(
        command,
        cwd=directory,
        env=session.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        late = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        assert process.stdout
        said = process.stdout.read()
        process.wait()
        late.cancel()
    return said


class FusedCounter:
    """Counts connections that carried payload in rings while a suite runs: the broker keeps
    those that are over for a minute."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._before = self._ids()
        self._seen: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _ids(self) -> set[int]:
        if self._session.broker is None:
            return set()
        rows = self._session.broker.rows()
        return {row.id for row in rows if row.bytes_to_server + row.bytes_to_client > 0}

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self._seen |= self._ids()

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        self._seen |= self._ids()
        return len(self._seen - self._before)
