"""CPython's own tests, as Debian packages them for its interpreter."""

from __future__ import annotations

import tempfile
from pathlib import Path

from judges.suite import FusedCounter, run_suite
from judges.verdict import Verdict, read_junit
from sessions import Session

PYTHON = "/usr/bin/python3"
SHORT = ["test_select", "test_epoll", "test_socketserver", "test_httplib"]
SHORT += ["test_urllib2_localnet"]
LONG = [
    "test_poll",
    "test_selectors",
    "test_xmlrpc",
    "test_httpservers",
    "test_ssl",
    "test_socket",
    "test_asyncio",
]
LONG += ["test_multiprocessing_spawn", "test_multiprocessing_fork"]
LONG += ["test_multiprocessing_forkserver"]
LIMIT = {
    "test_asyncio": 600.0,
    "test_multiprocessing_spawn": 900.0,
    "test_multiprocessing_forkserver": 900.0,
}
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
        limit = LIMIT.get(module, _LIMIT)
        said = run_suite([*command, module], session, Path(directory), limit)
        fused = counter.stop()
        assert report.exists(), f"{module} wrote no report\n{said[-3000:]}"
        verdict = read_junit(report)
    verdict.fused = fused
    return verdict
