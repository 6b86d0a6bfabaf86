"""What the wire shows: handshake, FIN, and before that at most a copy of what nobody has read yet;
firewalls decide as ever."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, eventually
from conftest import PROGRAMS, tool
from loopfuse._segments import RING_DEFAULT
from sessions import Session, listens

GIB = 1 << 30
PORT = 7700
KNOCK = "import socket; socket.socket().connect_ex(('127.0.0.1', 1))"


class Namespace:
    """A network namespace of the test's own, with lo up."""

    def __init__(self) -> None:
        self.name = f"loopfuse-{os.getpid()}"
        ip = tool("ip")
        subprocess.run([ip, "netns", "add", self.name], check=True)
        self.inside = [ip, "netns", "exec", self.name]
        subprocess.run([*self.inside, ip, "link", "set", "lo", "up"], check=True)

    def remove(self) -> None:
        subprocess.run([tool("ip"), "netns", "del", self.name], check=True)


@pytest.fixture
def namespace() -> object:
    if os.getuid() != 0:
        pytest.skip("making a network namespace and capturing need root")
    namespace = Namespace()
    yield namespace
    namespace.remove()


def packets(capture: Path) -> list[str]:
    """What tcpdump has written so far, one line a packet."""
    command = [tool("tcpdump"), "-nr", str(capture), "tcp"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def payload_in(listing: list[str]) -> int:
    """Bytes by their numbers, as tcpdump tells them from the first one on: what is sent again,
    as it is on a busy machine, counts once."""
    ends: dict[str, int] = {}
    for line in listing:
        if numbers := re.search(r"(\S+ > \S+): .* seq \d+:(\d+)", line):
            ends[numbers[1]] = max(ends.get(numbers[1], 0), int(numbers[2]) - 1)
    return sum(ends.values())


@pytest.mark.timeout(180)
def test_of_a_gibibyte_tcp_has_at_most_a_copy_of_what_was_unread_at_the_end(
    eagerly_fused: Session, namespace: Namespace, tmp_path: Path
) -> None:
    capture = tmp_path / "lo.pcap"
    command = [*namespace.inside, tool("tcpdump"), "-i", "lo", "-U", "-s", "128", "-w"]
    tcpdump = subprocess.Popen([*command, str(capture), "tcp"], stderr=subprocess.PIPE)
    try:
        assert tcpdump.stderr is not None
        assert b"listening" in tcpdump.stderr.readline()
        # It says so before it really captures: until then, connections to nobody.
        knock = [*namespace.inside, sys.executable, "-c", KNOCK]
        eventually(
            lambda: subprocess.run(knock, check=True).returncode == 0 and bool(packets(capture)),
            "it captures",
        )
        bulk = [*namespace.inside, sys.executable, str(PROGRAMS / "bulk.py")]
        server = subprocess.Popen(
            [*bulk, "server", str(PORT)],
            env=eagerly_fused.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        sent = eagerly_fused.run([*bulk, "client", str(PORT), str(GIB)], timeout=120).stdout
        received, _ = server.communicate(timeout=60)
        eventually(lambda: any("Flags [F.]" in line for line in packets(capture)), "FIN is seen")
    finally:
        tcpdump.terminate()
        tcpdump.communicate(timeout=10)
    assert received == sent
    assert sum(r.bytes_to_server for r in eagerly_fused.fused_rows(PORT)) == GIB
    listing = [line for line in packets(capture) if f".{PORT}" in line]
    assert any("Flags [S]" in line for line in listing), listing
    assert any("Flags [S.]" in line for line in listing), listing
    assert payload_in(listing) <= RING_DEFAULT, listing


def test_a_rejecting_rule_still_refuses_the_connection(
    eagerly_fused: Session, namespace: Namespace, session_broker: BrokerProcess
) -> None:
    rules = (
        "add table inet t; add chain inet t c { type filter hook input priority 0; };"
        f"add rule inet t c tcp dport {PORT} reject with tcp reset"
    )
    subprocess.run([*namespace.inside, tool("nft"), rules], check=True)
    bulk = [*namespace.inside, sys.executable, str(PROGRAMS / "bulk.py")]
    server = subprocess.Popen(
        [*bulk, "server", str(PORT)], env=eagerly_fused.environment, stdout=subprocess.DEVNULL
    )
    try:
        eventually(lambda: listens(PORT, server.pid), "it listens")
        done = eagerly_fused.run([*bulk, "client", str(PORT), "1000"], check=False)
        assert "ConnectionRefusedError" in done.stderr
    finally:
        server.kill()
        server.wait()
