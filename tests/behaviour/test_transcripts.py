"""The promise: the same two programs, plain and fused, write the same transcript."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import PROGRAMS
from sessions import Session

PARTIES = PROGRAMS / "parties.py"


def scenarios(parties: Path) -> list[str]:
    return subprocess.check_output([sys.executable, str(parties), "NAMES"], text=True).split()


SCENARIOS = scenarios(PARTIES)
TIMEOUT = 60

NEEDS_A_WARM_START = {
    # The server never touches the connection, so eager pairing waits its second first and
    # the kill comes before the bytes instead of after them.
    "blocked_send_kill",
    "blocked_send_close",
}


def transcript(
    name: str,
    sessions: tuple[Session, Session],
    warm: bool,
    file: Path,
    parties_program: Path = PARTIES,
) -> tuple[str, int]:
    """What both parties wrote, and the server's port; the server's session comes first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        to_server, to_client = os.pipe(), os.pipe()
        told = {"WARM": "1" if warm else "0", "SCENARIO_FILE": str(file)}
        parties = []
        for side, session in zip("sc", sessions, strict=True):
            read, write = (
                (to_server[0], to_client[1]) if side == "s" else (to_client[0], to_server[1])
            )
            keep = [read, write] + ([listener.fileno()] if side == "s" else [])
            numbers = [str(n) for n in (port, listener.fileno(), read, write)]
            parties.append(
                subprocess.Popen(
                    [sys.executable, str(parties_program), name, side, *numbers],
                    env=session.environment | told,
                    pass_fds=keep,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    start_new_session=True,
                )
            )
    for fd in (*to_server, *to_client):
        os.close(fd)
    text = ""
    for party in parties:
        try:
            said, _ = party.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            # With all its children, which may hold its standard output.
            os.killpg(party.pid, signal.SIGKILL)
            said = party.communicate()[0] + "(hung)"
        text += f"{said}exit status {party.returncode}\n"
    return text, port


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_transcript_is_the_same(
    name: str, plain: Session, fused: Session, tmp_path: Path
) -> None:
    warm = not fused.eager or name in NEEDS_A_WARM_START
    expected, _ = transcript(name, (plain, plain), warm, tmp_path / "file")
    assert "(hung)" not in expected, expected
    got, port = transcript(name, (fused, fused), warm, tmp_path / "file")
    assert got == expected
    if warm:
        assert fused.fused_rows(port), "it was never fused"
