"""SIGKILL of either end or of the broker, at random moments: the survivor must notice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, eventually
from conftest import PROGRAMS
from sessions import Session, free_port, listens, stop_group

PARTY = PROGRAMS / "talker.py"
NOTICE = 1.0


def one_round(session: Session, victim: str, delay: float) -> None:
    port = free_port()

    def start(side: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(PARTY), side, str(port)]
        return subprocess.Popen(
            command, env=session.environment, stdout=subprocess.PIPE, start_new_session=True
        )

    server = start("server")
    eventually(lambda: listens(port), "the server listens")
    client = start("client")
    parties = {"server": server, "client": client}
    try:
        assert client.stdout is not None and client.stdout.readline() == b"talking\n"
        time.sleep(delay)
        survivor = parties["client" if victim == "server" else "server"]
        parties[victim].send_signal(signal.SIGKILL)
        survivor.wait(NOTICE)
        assert survivor.returncode == 0, "it saw neither end of file nor a reset"
    finally:
        for party in parties.values():
            stop_group(party)
            assert party.stdout is not None
            party.stdout.close()


@pytest.mark.timeout(3000)
def test_the_survivor_of_a_kill_notices_within_a_second(lazily_fused: Session, soak: bool) -> None:
    random.seed(1)
    for _ in range(1000 if soak else 40):
        one_round(lazily_fused, random.choice(["server", "client"]), random.random() * 0.05)


def test_the_death_of_the_broker_harms_no_connection(library: Path, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "broker.sock", "--idle-exit", "0", "--log-level", "error")
    session = Session.under(library, broker, eager=False)
    port = free_port()
    command = [sys.executable, str(PARTY)]
    with session.server([*command, "server", str(port)], port):
        client = subprocess.Popen(
            [*command, "client", str(port)], env=session.environment, stdout=subprocess.PIPE
        )
        assert client.stdout is not None and client.stdout.readline() == b"talking\n"
        assert session.fused_rows(port)
        broker.process.kill()
        broker.stop()
        time.sleep(0.3)
        assert client.poll() is None, "the connection did not survive the broker"
        client.send_signal(signal.SIGTERM)
        client.communicate(timeout=5)
        assert client.returncode == -signal.SIGTERM
