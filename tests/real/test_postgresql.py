"""PostgreSQL and pgbench: a server that forks for each connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_fixtures import eventually
from daemons import (
    postgresql_binaries,
    postgresql_cluster,
    postgresql_command,
    postgresql_is_ready,
)
from sessions import Session, free_port

CONSISTENT = (
    "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)"
    " and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)"
    " and (select count(*) from pgbench_history) = 1000"
)


@pytest.fixture
def cluster() -> Iterator[Path]:
    with postgresql_cluster() as data:
        yield data


def test_pgbench_ends_with_the_books_balanced(lazily_fused: Session, cluster: Path) -> None:
    port, binaries = free_port(), postgresql_binaries()
    where = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    pgbench = [str(binaries / "pgbench"), *where]
    with lazily_fused.server(postgresql_command(cluster, port), port, stderr=-3, cwd="/tmp"):
        eventually(lambda: postgresql_is_ready(port), "it is ready")
        lazily_fused.run([*pgbench, "-i", "-q", "postgres"])
        for options in (["-S", "-c", "1", "-t", "2000"], ["-c", "4", "-t", "250"]):
            said = lazily_fused.run([*pgbench, *options, "postgres"]).stdout
            assert "number of failed transactions: 0" in said
        psql = [str(binaries / "psql"), *where, "-Atc", CONSISTENT, "postgres"]
        assert lazily_fused.run(psql).stdout == "t\n"
        assert len(lazily_fused.fused_rows(port)) >= 5
