"""The three shapes of server, a thousand connections each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sessions import Session, free_port

HERE = Path(__file__).parent.parent / "programs"


@pytest.mark.parametrize("shape", ["fork", "prefork", "thread"])
def test_a_thousand_connections_are_served(lazily_fused: Session, shape: str) -> None:
    port = free_port()
    server = [sys.executable, str(HERE / "servers.py"), shape, str(port)]
    with lazily_fused.server(server, port):
        client = [sys.executable, str(HERE / "many_clients.py"), str(port)]
        assert lazily_fused.run(client).stdout == "1000 ok\n"
        assert len(lazily_fused.fused_rows(port)) > 500


def test_one_end_without_the_library_stays_plain(plain: Session, lazily_fused: Session) -> None:
    for inside, outside in ((lazily_fused, plain), (plain, lazily_fused)):
        port = free_port()
        server = [sys.executable, str(HERE / "servers.py"), "thread", str(port)]
        with inside.server(server, port):
            client = [sys.executable, str(HERE / "many_clients.py"), str(port), "50"]
            assert outside.run(client).stdout == "200 ok\n"
        assert not lazily_fused.fused_rows(port)
