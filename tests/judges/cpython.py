"""CPython's own tests, as Debian packages them for its interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from judges.verdict import Verdict, read_junit
from sessions import Session

PYTHON = "/usr/bin/python3"
SHORT = ["test_select", "test_poll", "test_epoll", "test_selectors", "test_socketserver"]
SHORT += ["test_httplib", "test_xmlrpc", "test_urllib2_localnet"]
LONG = ["test_httpservers", "test_ssl", "test_socket", "test_asyncio"]
LONG += ["test_multiprocessing_spawn", "test_multiprocessing_fork"]
LIMIT = {"test_asyncio": 600.0, "test_multiprocessing_spawn": 900.0}
"""Seconds for a whole module; others get _LIMIT."""
_LIMIT = 400.0
_EACH = 120
"""Seconds for a single test."""
LEFT_OUT = ["*VSOCK*"]
"""AF_VSOCK hangs on plain TCP too, on machines that are themselves virtual."""


def is_there() -> bool:
    return any(Path("/usr/lib").glob("python3*/test/test_socket.py"))


def judge(module: str, session: Session) -> Verdict:
    """Runs one module. Raises AssertionError if it came to no report."""
    with tempfile.TemporaryDirectory(prefix="loopfuse-judge-") as directory:
        report = Path(directory) / "report.xml"
        command = [PYTHON, "-m", "test", "--timeout", str(_EACH), f"--junit-xml={report}"]
        command += ["-u", "network"]  # test_socketserver asks for it, loopback or not
        for pattern in LEFT_OUT:
            command += ["--ignore", pattern]
        counter = FusedCounter(session)
        said = _run([*command, module], session, directory, LIMIT.get(module, _LIMIT))
        fused = counter.stop()
        assert report.exists(), f"{module} wrote no report\n{said[-3000:]}"
        verdict = read_junit(report)
    verdict.fused = fused
    return verdict


def _run(command: list[str], session: Session, directory: str, limit: float) -> str:
    """In a process group of its own, of which nothing is left."""
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
