"""Where a rule looks at payload on lo, the connections it concerns are plain TCP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, eventually
from commands import LOOPFUSE
from firewall.namespace import Namespace
from firewall.talkers import talk
from firewall.test_rules import chain
from sessions import Session

PORT, OTHER = 7001, 7002
COUNTS = chain(f"tcp dport {PORT} counter accept")


@pytest.fixture
def broker(place: Namespace, tmp_path: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path / "broker.sock", "--log-level", "info", prefix=place.prefix)
    yield process
    code, said = process.stop()
    assert code == 0 and "Traceback" not in said, said


@pytest.fixture
def session(library: Path, broker: BrokerProcess) -> Session:
    return Session.under(library, broker, eager=False)


@pytest.fixture(autouse=True)
def clean(place: Namespace) -> Iterator[None]:
    yield
    place.run("nft", "flush", "ruleset")


def counted(place: Namespace) -> int:
    """Bytes that all counters have seen."""
    said = place.run("nft", "list", "ruleset")
    return sum(int(found) for found in re.findall(r"packets \d+ bytes (\d+)", said))


def test_what_a_rule_counts_stays_plain_and_nothing_else(
    place: Namespace, session: Session
) -> None:
    place.rules(COUNTS)
    with talk(session, PORT, place.prefix) as watched, talk(session, OTHER, place.prefix) as free:
        row = watched.becomes("plain", "firewall")
        assert row.detail is not None
        assert re.fullmatch(
            rf"nft inet t c, handle \d+: counts packets; concerns connections with "
            rf"tcp dport {PORT}",
            row.detail,
        )
        free.becomes("fused")
        before = counted(place)
        eventually(lambda: counted(place) > before + 100_000, "the rule counts")


def _nft(place: Namespace) -> Callable[[], object]:
    place.rules(COUNTS)
    return lambda: place.run("nft", "flush", "ruleset")


def _legacy(place: Namespace) -> Callable[[], object]:
    rule = ["INPUT", "-p", "tcp", "--dport", str(PORT), "-m", "quota", "--quota", "999999999999"]
    place.run("iptables-legacy", "-A", *rule, "-j", "ACCEPT")
    return lambda: place.run("iptables-legacy", "-F")


def _tc(place: Namespace) -> Callable[[], object]:
    place.run("tc", "qdisc", "add", "dev", "lo", "root", "pfifo")
    return lambda: place.run("tc", "qdisc", "del", "dev", "lo", "root")


@pytest.mark.parametrize("make", [_nft, _legacy, _tc], ids=["nftables", "iptables-legacy", "tc"])
def test_live_connections_go_back_to_tcp_when_a_rule_appears(
    place: Namespace, session: Session, make: Callable[[Namespace], Callable[[], object]]
) -> None:
    with talk(session, PORT, place.prefix) as talking:
        talking.becomes("fused")
        unmake = make(place)
        try:
            row = talking.becomes("defused", "firewall")
            assert row.detail
        finally:
            unmake()

    def fuses_anew() -> bool:
        with talk(session, PORT, place.prefix) as anew:
            time.sleep(0.1)
            return anew.row is not None and anew.row.state == "fused"

    eventually(fuses_anew, "new connections are fused when the rule has gone")


def test_a_rule_in_a_namespace_that_roots_broker_looks_into(
    place: Namespace, library: Path, session_broker: BrokerProcess
) -> None:
    session = Session.under(library, session_broker, eager=False)
    with talk(session, PORT, place.prefix) as talking:
        talking.becomes("fused")
        place.rules(COUNTS)
        talking.becomes("defused", "firewall")


def test_an_eager_first_byte_does_not_wait_for_what_a_rule_forbids(
    place: Namespace, library: Path, broker: BrokerProcess
) -> None:
    place.rules(COUNTS)
    begin = time.monotonic()
    with talk(Session.under(library, broker, eager=True), PORT, place.prefix) as watched:
        watched.becomes("plain", "firewall")
    # Not a second for each of the two sides, as in vain it would be.
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("rules", ["reject with tcp reset", "reject"])
def test_the_handshake_is_the_firewalls_to_decide(
    place: Namespace, session: Session, rules: str
) -> None:
    place.rules(chain(f"tcp dport {PORT} ct state new {rules}"))
    connect = (
        "import socket, sys\n"
        f"l = socket.create_server(('127.0.0.1', {PORT}))\n"
        "try: socket.create_connection(l.getsockname(), 5)\n"
        "except OSError as error: print(error)\n"
    )
    said = [
        subprocess.run(
            [*place.prefix, *before, sys.executable, "-c", connect],
            env=environment, capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for before, environment in (([], None), (session.prefix, session.environment))
    ]  # fmt: skip
    assert said[0] == said[1] == "[Errno 111] Connection refused\n"


def loopfuse(session: Session, *words: str) -> str:
    assert session.broker is not None
    environment = session.environment | {"LOOPFUSE_BROKER": str(session.broker.path)}
    environment.pop("LD_PRELOAD")
    done = subprocess.run(
        [*LOOPFUSE, *words],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout


def test_ps_and_doctor_name_the_rule(place: Namespace, session: Session) -> None:
    place.rules(COUNTS)
    with talk(session, PORT, place.prefix) as watched:
        row = watched.becomes("plain", "firewall")
        shown = loopfuse(session, "ps")
        assert f"{row.id}: firewall: {row.detail}" in shown
        findings = {one["check"]: one for one in json.loads(loopfuse(session, "doctor", "--json"))}
    assert findings["firewall"]["verdict"] == "warn"
    assert str(row.detail) in findings["firewall"]["seen"]


def test_a_kind_that_the_policy_ignores_keeps_nobody_from_fusing(
    place: Namespace, library: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[firewall]\nignore = ["counter"]\n')
    place.rules(COUNTS)
    broker = BrokerProcess(tmp_path / "own.sock", "--policy", str(policy), prefix=place.prefix)
    try:
        with talk(Session.under(library, broker, eager=False), PORT, place.prefix) as talking:
            talking.becomes("fused")
    finally:
        broker.stop()
