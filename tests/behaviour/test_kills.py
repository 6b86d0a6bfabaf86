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
from holdings import segments_in_use
from sessions import Session, free_port, listens, stop_group

PARTY = PROGRAMS / "talker.py"
NOTICE = 10.0


class Talk:
    """Two talkers and their connection."""

    def __init__(self, session: Session) -> None:
        self.port = free_port()
        self._session = session
        self.server = self._start("server")
        eventually(lambda: listens(self.port), "the server listens")
        self.client = self._start("client")

    def _start(self, side: str) -> subprocess.Popen[str]:
        return self._session.start([sys.executable, str(PARTY), side, str(self.port)])

    def wait_until(self, said: str) -> None:
        assert self.client.stdout is not None
        assert self.client.stdout.readline() == said

    def end(self) -> None:
        for party in (self.server, self.client):
            stop_group(party)


def one_kill(session: Session, broker: BrokerProcess, rng: random.Random) -> None:
    """Kills one of the three, between the first message and some time after fusing."""
    talk = Talk(session)
    try:
        talk.wait_until("begun\n")
        if rng.random() < 0.5:
            talk.wait_until("talking\n")
        time.sleep(rng.random() * 0.05)
        victim = rng.choice([talk.server, talk.client, broker.process])
        victim.send_signal(signal.SIGKILL)
        if victim is broker.process:
            time.sleep(0.1)
            assert talk.server.poll() is None and talk.client.poll() is None, "it hurt them"
            victim = talk.server
            victim.send_signal(signal.SIGKILL)
        survivor = talk.client if victim is talk.server else talk.server
        survivor.wait(NOTICE)
        assert survivor.returncode == 0, "it saw neither end of file nor a reset"
    finally:
        talk.end()


def wait_for_descriptors(broker: BrokerProcess, count: int) -> None:
    eventually(lambda: broker.descriptors() <= count, "the broker lets go")


@pytest.mark.timeout(3000)
def test_a_kill_is_noticed_and_leaves_nothing_behind(
    library: Path, tmp_path: Path, soak: bool
) -> None:
    rng = random.Random(1)
    folder = tmp_path / "broker"
    folder.mkdir()

    def start() -> tuple[BrokerProcess, int]:
        made = BrokerProcess(folder / "broker.sock", "--idle-exit", "0", "--log-level", "error")
        made.rows()
        return made, made.descriptors()

    broker, descriptors = start()
    try:
        for _ in range(1000 if soak else 40):
            one_kill(Session.under(library, broker, eager=rng.random() < 0.3), broker, rng)
            if broker.process.poll() is not None:
                broker.stop()
                broker, descriptors = start()
            # No segment, no doorbell, no connection of a dead process.
            wait_for_descriptors(broker, descriptors)
        assert segments_in_use(folder) == []
    finally:
        code, _ = broker.stop()
    assert code == 0
    # The lock stays: removing it would let two brokers start at once.
    assert [file.name for file in folder.iterdir()] == ["broker.sock.lock"]


def test_a_connection_outlives_its_broker(library: Path, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "broker.sock", "--idle-exit", "0", "--log-level", "error")
    talk = Talk(session := Session.under(library, broker, eager=False))
    try:
        talk.wait_until("begun\n")
        talk.wait_until("talking\n")
        assert session.fused_rows(talk.port)
        broker.kill()
        time.sleep(0.3)
        assert talk.client.poll() is None, "the connection did not survive the broker"
        assert talk.server.poll() is None
    finally:
        talk.end()
