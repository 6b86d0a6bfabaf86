"""redis-server and redis-benchmark, as Debian ships them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import tool
from daemons import redis_command
from sessions import Session, free_port


@contextmanager
def redis(session: Session, directory: Path) -> Iterator[int]:
    port = free_port()
    with session.server(redis_command(directory, port), port):
        yield port


@pytest.mark.parametrize(
    "options",
    [
        ["-c", "1", "-n", "5000"],
        ["-c", "50", "-n", "40000"],
        ["-c", "50", "-P", "16", "-n", "80000"],
    ],
    ids=["one-client", "fifty-clients", "pipelined"],
)
def test_the_benchmark_completes_fused(
    lazily_fused: Session, tmp_path: Path, options: list[str]
) -> None:
    with redis(lazily_fused, tmp_path) as port:
        command = [tool("redis-benchmark"), "-p", str(port), "-q", "-t", "set,get", *options]
        assert lazily_fused.run(command).stdout.count("requests per second") >= 2
        assert len(lazily_fused.fused_rows(port)) >= int(options[1])


def test_values_come_back_as_they_went_in(plain: Session, fused: Session, tmp_path: Path) -> None:
    answers = []
    for session in (plain, fused):
        with redis(session, tmp_path) as port:
            script = "".join(f"SET k{i} {'v' * (i * 37 % 3000)}{i}\nGET k{i}\n" for i in range(500))
            (tmp_path / "script").write_text(script)
            shell = f"{tool('redis-cli')} -p {port} < {tmp_path / 'script'}"
            answers.append(session.run(["sh", "-c", shell]).stdout)
            assert session is plain or session.fused_rows(port)
    assert answers[0] == answers[1]
