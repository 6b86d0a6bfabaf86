"""The three shapes of server, a thousand connections each."""

from __future__ import annotations

import sys

import pytest

from conftest import PROGRAMS
from sessions import Session, free_port


@pytest.mark.parametrize("shape", ["fork", "prefork", "thread"])
def test_a_thousand_connections_are_served(lazily_fused: Session, shape: str) -> None:
    port = free_port()
    server = [sys.executable, str(PROGRAMS / "servers.py"), shape, str(port)]
    with lazily_fused.server(server, port):
        client = [sys.executable, str(PROGRAMS / "many_clients.py"), str(port)]
        assert lazily_fused.run(client).stdout == "1000 ok\n"
        # How many last long enough to be fused depends on how busy the machine is.
        assert len(lazily_fused.fused_rows(port)) > 50


def test_one_end_without_the_library_stays_plain(plain: Session, lazily_fused: Session) -> None:
    for inside, outside in ((lazily_fused, plain), (plain, lazily_fused)):
        port = free_port()
        server = [sys.executable, str(PROGRAMS / "servers.py"), "thread", str(port)]
        with inside.server(server, port):
            client = [sys.executable, str(PROGRAMS / "many_clients.py"), str(port), "50"]
            assert outside.run(client).stdout == "200 ok\n"
        assert not lazily_fused.fused_rows(port)
