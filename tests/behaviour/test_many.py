"""Thousands of connections at once, and what happens where descriptors run short."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from sessions import Session, free_port

CONNECTIONS = 5000
DESCRIPTORS = 20000


def limited(count: int) -> object:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

    return limit


@pytest.mark.timeout(180)
def test_five_thousand_connections_at_once_are_fused(lazily_fused: Session, programs: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < DESCRIPTORS:
        pytest.skip(f"the hard limit on descriptors is below {DESCRIPTORS}")
    port, many = free_port(), str(programs / "many")
    limit = f"ulimit -n {DESCRIPTORS} && exec "
    server = ["sh", "-c", f"{limit}{many} server {port}"]
    with lazily_fused.server(server, port):
        command = ["sh", "-c", f"{limit}{many} client {port} {CONNECTIONS} 30"]
        assert lazily_fused.run(command, timeout=150).stdout == "ok\n"
    # ps keeps the last thousand closed rows; all of those were fused.
    rows = [r for r in lazily_fused.broker.rows() if r.server.port == port]  # type: ignore[union-attr]
    assert len(rows) >= 1000
    assert all(r.bytes_to_server for r in rows)


@pytest.mark.parametrize(("limit", "connections"), [(64, 20), (128, 100)])
def test_a_program_near_its_limit_meets_no_emfile(
    plain: Session, lazily_fused: Session, programs: Path, limit: int, connections: int
) -> None:
    many = str(programs / "many")
    for session in (plain, lazily_fused):
        port = free_port()
        shell = f"ulimit -n {limit} && exec "
        with session.server(["sh", "-c", f"{shell}{many} server {port}"], port):
            command = ["sh", "-c", f"{shell}{many} client {port} {connections} 30"]
            assert session.run(command).stdout == "ok\n"
