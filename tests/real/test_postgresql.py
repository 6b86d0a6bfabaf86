"""PostgreSQL and pgbench: a server that forks for each connection."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import tool
from sessions import Session, free_port

CONSISTENT = (
    "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)"
    " and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)"
    " and (select count(*) from pgbench_history) = 1000"
)


@pytest.fixture
def binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else Path(tool("initdb")).parent


@pytest.fixture
def cluster(binaries: Path, tmp_path: Path) -> Iterator[Path]:
    """A fresh cluster; initdb refuses root, so root makes it for the user postgres."""
    data = Path("/tmp") / f"loopfuse-pg-{os.getpid()}"
    initdb = [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres"]
    subprocess.run([*as_postgres(), *initdb], check=True, stdout=subprocess.DEVNULL, cwd="/tmp")
    yield data
    shutil.rmtree(data)


def as_postgres() -> list[str]:
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] * (
        os.getuid() == 0
    )


def test_pgbench_ends_with_the_books_balanced(
    lazily_fused: Session, binaries: Path, cluster: Path
) -> None:
    port = free_port()
    server = [*as_postgres(), str(binaries / "postgres"), "-D", str(cluster), "-k", ""]
    server += ["-p", str(port), "-c", "listen_addresses=127.0.0.1"]
    where = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    pgbench = [str(binaries / "pgbench"), *where]
    with lazily_fused.server(server, port, stderr=-3, cwd="/tmp"):
        lazily_fused.run([*pgbench, "-i", "-q", "postgres"])
        for options in (["-S", "-c", "1", "-t", "2000"], ["-c", "4", "-t", "250"]):
            said = lazily_fused.run([*pgbench, *options, "postgres"]).stdout
            assert "number of failed transactions: 0" in said
        psql = [str(binaries / "psql"), *where, "-Atc", CONSISTENT, "postgres"]
        assert lazily_fused.run(psql).stdout == "t\n"
        assert len(lazily_fused.fused_rows(port)) >= 5
