"""Thousands of connections at once, and what happens where descriptors run short."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from broker_fixtures import eventually
from conftest import PROGRAMS
from holdings import holdings_of, uses_segments
from sessions import Session, free_port

CONNECTIONS = 5000
DESCRIPTORS = 20000


@pytest.mark.timeout(180)
def test_five_thousand_connections_at_once_are_fused(lazily_fused: Session, programs: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < DESCRIPTORS:
        pytest.skip(f"the hard limit on descriptors is below {DESCRIPTORS}")
    port, many = free_port(), str(programs / "many")
    limit = f"ulimit -n {DESCRIPTORS} && exec "
    server = ["sh", "-c", f"{limit}{many} server {port}"]
    with lazily_fused.server(server, port):
        command = ["sh", "-c", f"{limit}{many} client {port} {CONNECTIONS} 100"]
        assert lazily_fused.run(command, timeout=150).stdout == "ok\n"
    # ps keeps the last thousand closed rows; all of those were fused.
    rows = [r for r in lazily_fused.broker.rows() if r.server.port == port]  # type: ignore[union-attr]
    assert len(rows) >= 1000
    assert not [r for r in rows if not r.bytes_to_server]


def pages_of_table(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmPTE:")[1].split()[0]) // 4


def address_space(pid: int) -> int:
    """KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmSize:")[1].split()[0])


def test_idle_connections_share_pages_of_page_table(lazily_fused: Session, programs: Path) -> None:
    """What a connection with short messages touches is one page. Alone in the 2 MiB that a page of
    page table covers, it would have one to itself."""
    port, many, count = free_port(), str(programs / "many"), 300
    with lazily_fused.server([many, "server", str(port)], port) as server:
        pages = -pages_of_table(server.pid)
        client = subprocess.Popen(
            [many, "client", str(port), str(count), "100", "hold"],
            env=lazily_fused.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert client.stdout and client.stdout.readline() == "ready\n"
            pages += pages_of_table(server.pid)
            mappings = holdings_of(server.pid, client.pid).mappings
            assert client.communicate("\n", timeout=30)[0] == "ok\n"
        finally:
            client.kill()
            client.wait()
        eventually(lambda: not uses_segments(server.pid), "all of them are let go")
        # The places of those that are over are taken again.
        command = [many, "client", str(port), str(count), "100"]
        before = address_space(server.pid)
        assert lazily_fused.run(command).stdout == "ok\n"
        eventually(lambda: address_space(server.pid) <= before, "all of them are let go")
    assert pages < count / 4
    assert mappings == 4 * count, "as a whole, and its header, at both ends"


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


@pytest.mark.parametrize("limit", [100, 300])
def test_a_program_gets_as_many_descriptors_as_without(
    plain: Session, lazily_fused: Session, limit: int
) -> None:
    said = []
    for session in (plain, lazily_fused):
        port = free_port()
        with session.server(
            [sys.executable, str(PROGRAMS / "servers.py"), "thread", str(port)], port
        ):
            fill = f"{sys.executable} {PROGRAMS / 'fill.py'} {port} 40 200"
            said.append(session.run(["sh", "-c", f"ulimit -n {limit} && exec {fill}"]).stdout)
    assert said[1] == said[0]
    assert said[0].endswith("ok\n")
    rows = [row for row in lazily_fused.fused_rows(port) if row.bytes_to_server]
    assert rows, "it was never fused"
