"""The netlink reader against sockets of our own."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from broker_fixtures import TcpPair, connect_pair, tcp_pair
from loopfuse._kernel import netns_cookie, socket_cookie
from loopfuse._matching import Endpoint, endpoint
from loopfuse._sockdiag import SockDiag, State


@pytest.fixture
def diag() -> Iterator[SockDiag]:
    reader = SockDiag()
    yield reader
    reader.close()


def _endpoint(family: int, name: tuple[str, int]) -> Endpoint:
    return endpoint(family, socket.inet_pton(family, name[0]).ljust(16, b"\0"), name[1])


def ends(sock: socket.socket) -> tuple[Endpoint, Endpoint]:
    family = int(sock.family)
    return _endpoint(family, sock.getsockname()[:2]), _endpoint(family, sock.getpeername()[:2])


def both(pair: TcpPair) -> tuple[socket.socket, socket.socket]:
    return pair.client, pair.server


@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "mapped"])
def test_each_end_is_found_by_its_addresses(diag: SockDiag, kind: str) -> None:
    with tcp_pair(kind) as pair:
        for sock in both(pair):
            info = diag.lookup(*ends(sock), cookie=socket_cookie(sock))
            assert info is not None
            assert info.cookie == socket_cookie(sock)
            assert info.state == State.ESTABLISHED
            assert info.family == sock.family
            assert info.inode != 0
            assert not info.transparent


def test_a_mapped_socket_is_found_as_ipv4(diag: SockDiag) -> None:
    with tcp_pair("mapped") as pair:
        local, remote = ends(pair.server)
        assert local.is_ipv4
        info = diag.lookup(local, remote)
        assert info is not None and info.family == socket.AF_INET6


@pytest.mark.parametrize("cookie", [1, 0, 0xFFFFFFFFFFFFFFFF])
def test_another_cookie_finds_nothing(diag: SockDiag, cookie: int) -> None:
    with tcp_pair() as pair:
        assert diag.lookup(*ends(pair.client), cookie=cookie) is None


def test_a_listener_is_not_taken_for_a_connection(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        local = _endpoint(socket.AF_INET, listener.getsockname())
        assert diag.lookup(local, Endpoint(b"\x7f\0\0\x01", 9)) is None


def test_a_closed_end_has_no_inode_and_then_is_gone(diag: SockDiag) -> None:
    with tcp_pair() as pair:
        names = ends(pair.client)
        cookie = socket_cookie(pair.client)
        pair.client.close()
        info = diag.lookup(*names, cookie=cookie)
        assert info is None or info.inode == 0
        pair.server.close()
        assert diag.lookup(*names, cookie=cookie) is None


def test_a_half_closed_connection_shows_its_states(diag: SockDiag) -> None:
    with tcp_pair() as pair:
        pair.client.shutdown(socket.SHUT_WR)
        assert pair.server.recv(1) == b""
        states = [info.state for sock in both(pair) if (info := diag.lookup(*ends(sock)))]
        # FIN_WAIT1 until the FIN is acknowledged, which may be put off.
        assert states[0] in (State.FIN_WAIT1, State.FIN_WAIT2)
        assert states[1] == State.CLOSE_WAIT


def test_an_answer_that_could_not_be_taken_in_is_not_the_next_one(
    diag: SockDiag, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tcp_pair() as pair, tcp_pair() as other:
        with monkeypatch.context() as short, pytest.raises(ValueError, match="negative"):
            short.setattr("loopfuse._sockdiag._BUFFER", -1)  # recv refuses that before it asks
            diag.lookup(*ends(other.client))
        info = diag.lookup(*ends(pair.client))
        assert info is not None and info.cookie == socket_cookie(pair.client)


def test_the_dump_has_every_held_connection(diag: SockDiag) -> None:
    pairs = [connect_pair(kind) for kind in ("ipv4", "ipv6", "mapped") for _ in range(100)]
    cookies = {socket_cookie(sock) for pair in pairs for sock in both(pair)}
    try:
        assert cookies <= diag.held_cookies()
    finally:
        for pair in pairs:
            pair.close()
    assert not cookies & diag.held_cookies()


def test_the_dump_leaves_out_listeners_and_the_closed(diag: SockDiag) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, tcp_pair() as pair:
        gone = socket_cookie(pair.client)
        pair.client.close()
        held = diag.held_cookies()
        assert socket_cookie(pair.server) in held
        assert not {gone, socket_cookie(listener)} & held


def test_sockets_of_one_namespace_share_its_cookie(diag: SockDiag) -> None:
    with tcp_pair() as pair:
        assert netns_cookie(pair.client) == netns_cookie(pair.server) == netns_cookie(diag.socket)
