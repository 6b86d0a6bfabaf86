"""Every byte, once and in order: many threads, every call, every variant of the library."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess
from conftest import sanitizer_build, tool
from loopfuse._control import order_defuse
from sessions import Session, free_port

BYTES = 20_000_000


def torture(
    session: Session, programs: Path, seed: int, size: int = BYTES, share: float = 0.3
) -> None:
    port, connections = free_port(), 4
    stress = str(programs / "stress")
    with session.server([stress, "server", str(port), str(connections)], port) as server:
        command = [stress, "client", str(port), str(connections), str(size), str(seed)]
        assert session.run(command).stdout == "ok\n"
        assert server.wait(20) == 0
    if session.broker:
        rows = session.fused_rows(port)
        assert 0 < len(rows) <= connections  # lazily, one may be over before it was paired
        # A direction may switch late when its threads are never all out of the kernel, and on
        # a busy machine a send that does not want to wait for the pairing does not.
        fused = sum(row.bytes_to_server + row.bytes_to_client for row in rows)
        assert fused > 2 * size * connections * share


@pytest.mark.parametrize("seed", [1, 2])
def test_every_byte_arrives_once_and_in_order(fused: Session, programs: Path, seed: int) -> None:
    torture(fused, programs, seed)


def test_the_stress_program_itself_passes_on_plain_tcp(plain: Session, programs: Path) -> None:
    torture(plain, programs, 1)


def act_while_defusing(
    session: Session, broker: BrokerProcess, programs: Path, seed: int
) -> set[str | None]:
    """Has connections defused as soon as they carry bytes; the reasons in the broker's rows."""
    port, size = free_port(), 60_000_000
    stress = str(programs / "stress")
    with session.server([stress, "server", str(port), "4"], port) as server:
        command = [stress, "client", str(port), "4", str(size), str(seed)]
        client = subprocess.Popen(command, env=session.environment, stdout=subprocess.PIPE)
        while client.poll() is None:
            live = [
                row.id
                for row in broker.rows()
                if row.server.port == port and row.state == "fused" and row.bytes_to_server
            ]
            if live:
                order_defuse(broker.path, live[:1])
        assert client.communicate()[0] == b"ok\n"
        assert client.returncode == 0
        assert server.wait(20) == 0
    return {row.reason for row in broker.rows() if row.server.port == port}


def test_every_byte_arrives_while_connections_are_defused(
    lazily_fused: Session, programs: Path
) -> None:
    broker = lazily_fused.broker
    assert broker is not None
    # All is over in a moment, in which a busy machine may not let us look once.
    tries = (act_while_defusing(lazily_fused, broker, programs, seed) for seed in range(5, 15))
    assert any("request" in reasons for reasons in tries)


def test_the_library_is_clean_under_address_and_undefined_sanitizers(
    session_broker: BrokerProcess, programs: Path
) -> None:
    build = sanitizer_build("LOOPFUSE_ASAN_LIBRARY")
    tool("gcc")
    session = Session.under(build, session_broker, eager=False)
    torture(session, programs, 3, 10_000_000, share=0.1)
