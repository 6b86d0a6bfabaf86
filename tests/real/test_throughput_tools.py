"""iperf3, sockperf and memcached: tools that check what they move."""

from __future__ import annotations

import json
import socket
import sys

import pytest

from conftest import PROGRAMS, tool
from daemons import memcached_command
from sessions import Session, free_port


@pytest.mark.parametrize("options", [[], ["-R"], ["-P", "8"], ["--bidir"]], ids=str)
def test_iperf3_moves_its_bytes(lazily_fused: Session, options: list[str]) -> None:
    port = free_port()
    with lazily_fused.server([tool("iperf3"), "-s", "-p", str(port)], port):
        command = [tool("iperf3"), "-c", "127.0.0.1", "-p", str(port), "-t", "1", "-J", *options]
        end = json.loads(lazily_fused.run(command).stdout)["end"]
        assert end["sum_sent"]["bytes"] >= end["sum_received"]["bytes"] > 1_000_000
        assert lazily_fused.fused_rows(port)


def test_sockperf_finds_every_message_intact(lazily_fused: Session) -> None:
    port = free_port(held=False)
    where = ["--tcp", "-i", "127.0.0.1", "-p", str(port)]
    with lazily_fused.server([tool("sockperf"), "server", *where], port):
        # Large messages: it gives up beyond so many a second, which small ones fused exceed.
        command = [tool("sockperf"), "ping-pong", *where, "-m", "16384", "-t", "1"]
        command += ["--data-integrity"]
        said = lazily_fused.run(command).stdout
        assert (
            "dropped messages = 0; # duplicated messages = 0; # out-of-order messages = 0" in said
        )
        assert "integrity test failed" not in said
        assert lazily_fused.fused_rows(port)


def test_memcached_gives_back_what_was_stored(fused: Session) -> None:
    port = free_port()
    with fused.server(memcached_command(port), port):
        client = [sys.executable, str(PROGRAMS / "memcached_client.py"), str(port)]
        assert fused.run(client).stdout == "3000 ok\n"
        assert fused.fused_rows(port)


def test_an_ordinary_connection_to_a_fused_server_works(lazily_fused: Session) -> None:
    """This very process is not under the library."""
    port = free_port()
    server = [sys.executable, str(PROGRAMS / "servers.py"), "thread", str(port)]
    with (
        lazily_fused.server(server, port),
        socket.create_connection(("127.0.0.1", port), 5) as connection,
    ):
        for _ in range(50):
            connection.sendall(b"abc")
            assert connection.recv(3, socket.MSG_WAITALL) == b"cba"
    assert not lazily_fused.fused_rows(port)
