"""What a connection that stays plain costs: hardly a system call beyond those of its program."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from sessions import Session

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")

_TALK = """
import socket
s = socket.create_server(('127.0.0.1', 0))
def one(rounds):
    a = socket.socket(); a.connect(s.getsockname()); b, _ = s.accept()
    for _ in range(rounds):
        a.send(b'x'); b.recv(1); b.send(b'y'); a.recv(1)
    a.close(); b.close()
one(1)
print('begin', flush=True)
"""


def calls_in(session: Session, trace: Path, what: str) -> Counter[str]:
    """The system calls of Python code that may call `one(rounds)`, by name."""
    command = ["strace", "-f", "-o", str(trace), *session.prefix, "python3", "-c"]
    talk = _TALK + what + "\nprint('end', flush=True)\n"
    subprocess.run(
        [*command, talk], env=session.environment, check=True, timeout=60, capture_output=True
    )
    lines = trace.read_text().split('"begin', 1)[1].split('"end', 1)[0].splitlines()[1:-1]
    return Counter(line.split(None, 1)[1].split("(", 1)[0] for line in lines if "(" in line)


def test_a_short_connection_costs_none(lazily_fused: Session, tmp_path: Path) -> None:
    calls = calls_in(lazily_fused, tmp_path / "trace", "for _ in range(5): one(1)")
    assert calls["socket"] == calls["accept4"] == 5
    assert calls["sendto"] == calls["recvfrom"] == 10
    assert calls["close"] == 10
    ours = ("getpid", "gettid", "futex", "rt_sigprocmask", "madvise", "getsockopt", "sendmsg")
    assert not any(calls[name] for name in ours)


@pytest.mark.parametrize("eager", ["0", "1"])
def test_a_long_one_that_no_broker_hears_of_costs_some_each_second(
    lazily_fused: Session, tmp_path: Path, eager: str
) -> None:
    nowhere = {"LOOPFUSE_BROKER": str(tmp_path / "nobody"), "LOOPFUSE_EAGER": eager}
    lazily_fused.environment.update(nowhere)
    calls = calls_in(lazily_fused, tmp_path / "trace", "one(1000)")
    assert calls["sendto"] == 2000
    assert calls["getsockopt"] < 400, "some thirty for a try, of which there is one a second"
