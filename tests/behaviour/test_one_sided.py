"""One end under loopfuse, the other not: plain TCP, no delay, no difference."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_transcripts import SCENARIOS, transcript

from broker_fixtures import eventually
from conftest import PROGRAMS
from sessions import Session, free_port, is_of_this_test, listens

IN_VAIN_MS, NOT_IN_VAIN = 50000, 10.0


@pytest.fixture(params=["server", "client"])
def sides(request: pytest.FixtureRequest, plain: Session, fused: Session) -> list[Session]:
    """The server's session, then the client's."""
    return [fused, plain] if request.param == "server" else [plain, fused]


def test_the_first_bytes_are_not_held_back(sides: list[Session]) -> None:
    server, client = sides
    port = free_port()
    command = [sys.executable, str(PROGRAMS / "servers.py"), "thread", str(port)]
    for session in sides:
        session.environment["LOOPFUSE_EAGER_WAIT_MS"] = str(IN_VAIN_MS)
    with server.server(command, port):
        begin = time.monotonic()
        program = [sys.executable, str(PROGRAMS / "many_clients.py"), str(port), "20"]
        assert client.run(program).stdout == "80 ok\n"
        assert time.monotonic() - begin < IN_VAIN_MS / 1000
    rows = [row for side in sides if side.broker for row in side.broker.rows()]
    rows = [row for row in rows if row.server.port == port and is_of_this_test(row)]
    assert not any(row.bytes_to_server for row in rows)


def test_a_client_does_not_wait_for_a_server_that_does_not_accept(eagerly_fused: Session) -> None:
    send = (
        "import socket, sys, time\n"
        "with socket.create_server(('127.0.0.1', 0)) as listener:\n"
        "    pass\n"
        "s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "begin = time.monotonic(); s.sendall(b'x'); print(time.monotonic() - begin)\n"
    )
    eagerly_fused.environment["LOOPFUSE_EAGER_WAIT_MS"] = str(IN_VAIN_MS)
    port = free_port()
    idle = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    server = subprocess.Popen([sys.executable, "-c", idle])
    try:
        eventually(lambda: listens(port), "it listens")
        took = eagerly_fused.run([sys.executable, "-c", send, str(port)]).stdout
        assert float(took) < NOT_IN_VAIN
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_transcript_is_the_same(
    name: str, plain: Session, lazily_fused: Session, tmp_path: Path
) -> None:
    expected, _ = transcript(name, (plain, plain), False, tmp_path / "file")
    assert "(hung)" not in expected, expected
    for sessions in ((plain, lazily_fused), (lazily_fused, plain)):
        assert transcript(name, sessions, False, tmp_path / "file")[0] == expected
