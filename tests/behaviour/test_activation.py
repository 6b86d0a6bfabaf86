"""Socket activation: a listener or a connection that a program finds at descriptor 3."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker_fixtures import eventually
from conftest import PROGRAMS, tool
from sessions import Session, free_port, listens, stop_group

COUNT = "3000"
HEARD = "b'missing 0, sum a539d95c\\n'\nb'more!'\n"


def conversation(session: Session, activator: list[str], port: int, programs: Path) -> str:
    """What the client hears of a service that `activator` starts."""
    service = [str(programs / "holder"), "activated", COUNT]
    process = subprocess.Popen(
        [*activator, *service],
        env=session.environment | {"HOLDER_ROUNDS": "1"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: listens(port), "the activator listens")
        client = [sys.executable, str(PROGRAMS / "activating_client.py"), str(port)]
        return session.run(client).stdout
    finally:
        stop_group(process)


def ours(port: int, what: str) -> list[str]:
    return [sys.executable, str(PROGRAMS / "activator.py"), str(port), what]


def systemds(port: int, session: Session, *options: str) -> list[str]:
    """It clears the environment but for what it is told to hand on."""
    kept = [name for name in session.environment if name.startswith(("LD_", "LOOPFUSE_"))]
    hand_on = [f"--setenv={name}" for name in [*kept, "HOLDER_ROUNDS"]]
    return [tool("systemd-socket-activate"), f"--listen=127.0.0.1:{port}", *hand_on, *options]


def test_a_service_that_inherits_its_listener_is_fused(
    plain: Session, fused: Session, programs: Path
) -> None:
    port = free_port()
    assert conversation(plain, ours(port, "listener"), port, programs) == HEARD
    assert conversation(fused, ours(port, "listener"), port, programs) == HEARD
    assert fused.fused_rows(port)


def test_a_service_that_inherits_its_connection_stays_plain(
    plain: Session, fused: Session, programs: Path
) -> None:
    port = free_port()
    assert conversation(plain, ours(port, "connection"), port, programs) == HEARD
    assert conversation(fused, ours(port, "connection"), port, programs) == HEARD
    assert not fused.fused_rows(port)


def test_systemd_hands_on_a_listener(fused: Session, programs: Path) -> None:
    port = free_port()
    assert conversation(fused, systemds(port, fused), port, programs) == HEARD
    assert fused.fused_rows(port)


@pytest.mark.parametrize("wrapped", [True, False], ids=["preloaded", "clean environment"])
def test_systemd_hands_on_connections(fused: Session, programs: Path, wrapped: bool) -> None:
    port = free_port()
    activator = systemds(port, fused, "--accept")
    if not wrapped:
        activator = [word for word in activator if not word.startswith("--setenv=LD_")]
    assert conversation(fused, activator, port, programs) == HEARD
