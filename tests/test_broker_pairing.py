"""From claims to pairs: the broker's main job, told through a fake library."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from broker_fixtures import (
    BrokerProcess,
    FakeLibrary,
    Message,
    TcpPair,
    claim_of,
    eventually,
    libraries,
    tcp_pair,
    tcp_pairs,
)
from loopfuse import _wire as wire
from loopfuse._broker_state.prospects import PATIENCE_OF_THE_LAZY
from loopfuse._kernel import socket_cookie
from loopfuse._reasons import Reason
from loopfuse._segments import DIRECTION, EXTRA, RING_DEFAULT, header_of, read_segment

pytest_plugins = ["broker_fixtures"]
CLIENT, SERVER = wire.Side.CLIENT, wire.Side.SERVER


def pair_up(one: FakeLibrary, other: FakeLibrary, pair: TcpPair) -> tuple[Message, Message]:
    """Claims both ends and returns both answers, the client's first."""
    one.claim(pair.client, CLIENT)
    other.claim(pair.server, SERVER)
    return one.receive(), other.receive()


def refusal(library: FakeLibrary) -> Reason:
    body = library.receive().body
    assert isinstance(body, wire.Refuse)
    return Reason(body.reason)


@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "mapped"])
def test_two_mirrored_claims_become_a_pair(broker: BrokerProcess, kind: str) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair(kind) as pair:
        to_client, to_server = pair_up(one, other, pair)
        assert isinstance(to_client.body, wire.Fuse)
        assert isinstance(to_server.body, wire.Fuse)
        assert to_client.body.pair_id == to_server.body.pair_id
        assert (to_client.body.side, to_server.body.side) == (CLIENT, SERVER)
        assert to_client.body.ring_size == to_server.body.ring_size == RING_DEFAULT
        (row,) = broker.rows()
        assert row.family == ("ipv6" if kind == "ipv6" else "ipv4")
        assert (row.client.pid, row.server.pid) == (os.getpid(), os.getpid())
        assert row.client.port == pair.client.getsockname()[1]


def test_both_ends_share_one_sealed_segment_and_one_doorbell(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        (segment, bell), (same_segment, other_bell) = (m.fds for m in pair_up(one, other, pair))
        assert os.fstat(segment).st_ino == os.fstat(same_segment).st_ino
        assert os.fstat(segment).st_size == EXTRA + 2 * RING_DEFAULT
        seals = fcntl.fcntl(segment, fcntl.F_GET_SEALS)
        for seal in (fcntl.F_SEAL_SHRINK, fcntl.F_SEAL_GROW, fcntl.F_SEAL_SEAL):
            assert seals & seal
        assert read_segment(segment).ring_size == RING_DEFAULT
        os.write(bell, b"x")
        assert os.read(other_bell, 2) == b"x"
        assert not os.get_blocking(bell)


def test_nobody_but_the_ends_holds_the_doorbell(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        to_client, to_server = pair_up(one, other, pair)
        bell = socket.socket(fileno=os.dup(to_client.fds[1]))
        other.close()  # with its end of the bell
        with bell:
            bell.settimeout(5)
            assert bell.recv(1) == b""
        del to_server


def test_limits_go_to_the_other_end(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, CLIENT, limit=5000)
        other.claim(pair.server, SERVER, limit=7000)
        to_client, to_server = one.receive().body, other.receive().body
        assert isinstance(to_client, wire.Fuse) and isinstance(to_server, wire.Fuse)
        assert (to_client.limit_out, to_server.limit_out) == (7000, 5000)


def test_both_ends_may_be_in_one_process(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (only,), tcp_pair() as pair:
        ids = {only.claim(pair.client, CLIENT), only.claim(pair.server, SERVER)}
        answers = [only.receive().body, only.receive().body]
        assert {answer.claim_id for answer in answers if isinstance(answer, wire.Fuse)} == ids


def test_of_two_clients_the_lower_end_is_the_client(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        other.claim(pair.server, CLIENT)
        first, second = one.receive().body, other.receive().body
        assert isinstance(first, wire.Fuse) and isinstance(second, wire.Fuse)
        lower = pair.client.getsockname() < pair.server.getsockname()
        assert (first.side == CLIENT) == lower
        assert first.side != second.side


def test_a_lone_claim_waits_and_shows_as_plain(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (one,), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        one.settle()
        (row,) = broker.rows()
        assert (row.state, row.reason) == ("plain", "no-counterpart")
        assert row.client.pid == os.getpid() and row.client.comm
        assert (row.server.pid, row.server.uid, row.server.comm) == (None, None, None)
        assert row.server.port == pair.server.getsockname()[1]
        assert one.is_silent()


def test_a_claim_before_accept_waits(broker: BrokerProcess) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        libraries(broker.path, 1) as (one,),
    ):
        one.claim(client, CLIENT)
        one.settle()
        server, _ = listener.accept()
        with server:
            one.claim(server, SERVER)
            assert isinstance(one.receive().body, wire.Fuse)


def test_a_socket_bound_to_a_device_is_found(broker: BrokerProcess) -> None:
    with socket.socket() as listener, libraries(broker.path, 1) as (one,):
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        except PermissionError:
            pytest.skip("binding to a device is not permitted here")
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            with server:
                one.claim(client, CLIENT)
                one.claim(server, SERVER)
                assert isinstance(one.receive().body, wire.Fuse)


def test_the_mailbox_counts_every_message(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        assert one.mail() == 1
        pair_up(one, other, pair)
        eventually(lambda: (one.mail(), other.mail()) == (2, 2), "both mailboxes count")


# -- claims that do not hold -----------------------------------------------------------


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"cookie": 1}, Reason.NOT_VERIFIED),
        ({"local_port": 1}, Reason.NOT_VERIFIED),
        ({"remote_port": 1}, Reason.NOT_VERIFIED),
        ({"local_addr": b"\x7f\0\0\x02" + bytes(12)}, Reason.NOT_VERIFIED),
        ({"netns_cookie": 0xFFFFFFFF}, Reason.FOREIGN_NETNS),
        ({"family": socket.AF_INET6}, Reason.NOT_VERIFIED),
    ],
)
def test_a_lie_is_refused_and_leaves_no_row(
    broker: BrokerProcess, lie: dict[str, Any], reason: Reason
) -> None:
    with libraries(broker.path, 1) as (liar,), tcp_pair() as pair:
        liar.claim(pair.client, CLIENT, **lie)
        assert refusal(liar) == reason
        assert broker.rows() == []


def test_a_lie_does_not_spoil_the_truth(broker: BrokerProcess) -> None:
    with libraries(broker.path, 3) as (liar, one, other), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        one.settle()
        liar.claim(pair.server, SERVER, cookie=1)
        assert refusal(liar) == Reason.NOT_VERIFIED
        other.claim(pair.server, SERVER)
        assert isinstance(other.receive().body, wire.Fuse)


def test_a_listener_is_no_connection(broker: BrokerProcess) -> None:
    with (
        libraries(broker.path, 1) as (liar,),
        tcp_pair() as pair,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        claim = claim_of(pair.client, SERVER)._replace(
            local_port=listener.getsockname()[1], cookie=socket_cookie(listener)
        )
        liar.send(wire.pack_claim(claim))
        assert refusal(liar) == Reason.NOT_VERIFIED


def test_a_claim_of_any_cookie_is_refused(broker: BrokerProcess) -> None:
    """All ones would make the kernel's lookup take every socket."""
    with libraries(broker.path, 1) as (liar,), tcp_pair() as pair:
        liar.claim(pair.client, CLIENT, cookie=0xFFFFFFFFFFFFFFFF)
        assert refusal(liar) == Reason.NOT_VERIFIED


def test_a_closing_connection_is_too_late(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (one,), tcp_pair() as pair:
        pair.client.shutdown(socket.SHUT_WR)
        assert pair.server.recv(1) == b""
        one.claim(pair.server, SERVER)
        assert refusal(one) == Reason.TOO_LATE
        (row,) = broker.rows()
        assert (row.state, row.reason) == ("plain", "too-late")


def test_a_connection_to_oneself_is_refused(broker: BrokerProcess) -> None:
    with socket.socket() as sock, libraries(broker.path, 1) as (one,):
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        one.claim(sock, CLIENT)
        assert refusal(one) == Reason.NOT_VERIFIED


def test_a_first_claim_that_has_died_is_not_paired(broker: BrokerProcess) -> None:
    """Its client lives, its socket is closed: the port may mean another connection."""
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        one.settle()
        pair.client.close()
        other.claim(pair.server, SERVER)
        assert refusal(other) == Reason.TOO_LATE
        assert one.is_silent()


def test_a_pair_is_not_paired_twice(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        pair_up(one, other, pair)
        one.claim(pair.client, CLIENT)
        assert refusal(one) == Reason.TOO_LATE


def test_a_claim_moves_to_whoever_made_it_last(broker: BrokerProcess) -> None:
    with libraries(broker.path, 3) as (old, new, other), tcp_pair() as pair:
        old.claim(pair.client, CLIENT)
        old.settle()
        new.claim(pair.client, CLIENT)
        assert refusal(old) == Reason.SHARED_DESCRIPTOR
        other.claim(pair.server, SERVER)
        assert isinstance(new.receive().body, wire.Fuse)


# -- declining ---------------------------------------------------------------------------


def decline(library: FakeLibrary, sock: socket.socket, side: wire.Side, reason: Reason) -> None:
    library.claim(sock, side, declined=True, reason=int(reason))


def test_declining_makes_a_row(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (one,), tcp_pair() as pair:
        decline(one, pair.client, CLIENT, Reason.STDIO)
        one.settle()
        (row,) = broker.rows()
        assert (row.state, row.reason) == ("plain", "stdio")


@pytest.mark.parametrize("first", ["claim", "decline"])
def test_a_declined_connection_does_not_stay_in_doubt(broker: BrokerProcess, first: str) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        if first == "claim":
            one.claim(pair.client, CLIENT)
            one.settle()
        decline(other, pair.server, SERVER, Reason.SOCKET_OPTION)
        other.settle()
        if first == "decline":
            one.claim(pair.client, CLIENT)
        assert refusal(one) == Reason.SOCKET_OPTION
        (row,) = broker.rows()
        assert (row.state, row.reason) == ("plain", "socket-option")


def test_only_the_owner_may_decline(broker: BrokerProcess) -> None:
    with libraries(broker.path, 3) as (liar, one, other), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        one.settle()
        liar.claim(pair.server, SERVER, declined=True, reason=int(Reason.STDIO), cookie=1)
        liar.settle()
        other.claim(pair.server, SERVER)
        assert isinstance(one.receive().body, wire.Fuse)


# -- the end -------------------------------------------------------------------------------


def test_a_closed_pair_becomes_a_closed_row(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        segment = pair_up(one, other, pair)[0].fds[0]
        line = header_of(segment) + DIRECTION
        os.pwrite(segment, (77).to_bytes(8, "little"), line)
        os.pwrite(segment, (1).to_bytes(4, "little"), line + 8)
        assert [row.state for row in broker.rows()] == ["fused"]
        pair.close()
        eventually(lambda: [row.state for row in broker.rows()] == ["closed"], "it is closed")
        (row,) = broker.rows()
        assert (row.bytes_to_server, row.reason) == (77, None)


def test_a_pair_stays_while_one_end_is_held(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        pair_up(one, other, pair)
        pair.client.close()
        other.send(wire.pack_closed(wire.Closed(1, 0)))
        other.settle()
        with pytest.raises(AssertionError, match="not within"):
            eventually(lambda: broker.rows()[0].state == "closed", "", seconds=2.5)


def test_the_hint_that_an_end_is_closed_is_only_a_hint(broker: BrokerProcess) -> None:
    with libraries(broker.path, 3) as (one, other, liar), tcp_pair() as pair:
        message = pair_up(one, other, pair)[0].body
        assert isinstance(message, wire.Fuse)
        liar.send(wire.pack_closed(wire.Closed(message.pair_id, 0)))
        liar.send(wire.pack_closed(wire.Closed(4711, 0)))
        with pytest.raises(AssertionError, match="not within"):
            eventually(lambda: broker.rows()[0].state == "closed", "", seconds=0.3)


def test_waiting_claims_go_with_their_client(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (other,), tcp_pair() as pair:
        one = FakeLibrary(broker.path)
        one.claim(pair.client, CLIENT)
        one.settle()
        one.close()
        eventually(lambda: broker.rows() == [], "the claim is gone")
        other.claim(pair.server, SERVER)
        other.settle()
        assert other.is_silent()


def test_a_waiting_claim_goes_with_its_socket(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (one,), tcp_pair() as pair:
        one.claim(pair.client, CLIENT)
        one.settle()
        pair.close()
        eventually(lambda: broker.rows() == [], "the claim is gone")


def test_a_pair_survives_the_client_that_made_it(broker: BrokerProcess) -> None:
    """A forked child may hold the socket."""
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        pair_up(one, other, pair)
        one.close()
        other.close()
        with pytest.raises(AssertionError, match="not within"):
            eventually(lambda: broker.rows()[0].state == "closed", "", seconds=1.5)


def test_an_address_used_again_is_another_connection(broker: BrokerProcess) -> None:
    def connect(port: int, target: tuple[str, int]) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        sock.connect(target)
        return sock

    linger = b"\1\0\0\0\0\0\0\0"
    port, seen = 0, set()
    with libraries(broker.path, 1) as (one,), socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(3):
            client = connect(port, listener.getsockname())
            port = client.getsockname()[1]
            server, _ = listener.accept()
            one.claim(client, CLIENT)
            one.claim(server, SERVER)
            answers = [one.receive().body, one.receive().body]
            assert all(isinstance(answer, wire.Fuse) for answer in answers)
            seen |= {a.pair_id for a in answers if isinstance(a, wire.Fuse)}
            for sock in (server, client):  # RST: no TIME_WAIT
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                sock.close()
    assert len(seen) == 3


def test_two_hundred_pairs_leave_no_descriptor_behind(broker: BrokerProcess) -> None:
    with libraries(broker.path, 2) as (one, other):
        other.settle()
        before = broker.descriptors()
        with tcp_pairs(200) as pairs:
            for pair in pairs:
                one.claim(pair.client, CLIENT)
                other.claim(pair.server, SERVER)
                for message in (one.receive(), other.receive()):
                    assert isinstance(message.body, wire.Fuse)
            one.settle()
            assert broker.descriptors() == before + 200  # the segments
        eventually(lambda: broker.descriptors() == before, "the segments are closed")
        assert len(broker.rows()) == 200


def test_the_broker_is_found_nowhere_between_the_ends(tmp_path: Path) -> None:
    """Killed, it takes nothing along: the bell rings on and the memory stays shared."""
    process = BrokerProcess(tmp_path / "broker.sock")
    try:
        with libraries(process.path, 2) as (one, other), tcp_pair() as pair:
            to_client, to_server = pair_up(one, other, pair)
            process.kill()
            assert one.is_dropped()
            os.write(to_client.fds[1], b"x")
            assert os.read(to_server.fds[1], 1) == b"x"
            os.pwrite(to_client.fds[0], b"payload", 4096)
            assert os.pread(to_server.fds[0], 7, 4096) == b"payload"
    finally:
        process.kill()


def test_an_eager_end_does_not_wait_for_somebody_without_the_library(broker: BrokerProcess) -> None:
    library = FakeLibrary(broker.path, flags=wire.EAGER)
    with tcp_pair() as pair:  # this very process holds both ends, and has no library
        library.claim(pair.client, CLIENT)
        assert refusal(library) == Reason.NO_COUNTERPART
        (row,) = broker.rows()
        assert (row.state, row.reason) == ("plain", "no-counterpart")
    library.close()


def test_an_eager_end_learns_that_its_listener_has_no_library(broker: BrokerProcess) -> None:
    library = FakeLibrary(broker.path, flags=wire.EAGER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            library.claim(client, CLIENT)
            assert refusal(library) == Reason.NO_COUNTERPART
    library.close()


def test_a_lazy_end_waits_seconds_for_an_end_without_the_library(broker: BrokerProcess) -> None:
    with libraries(broker.path, 1) as (library,), tcp_pair() as pair:
        begin = time.monotonic()
        library.claim(pair.client, CLIENT)
        assert refusal(library) == Reason.NO_COUNTERPART
        assert time.monotonic() - begin > PATIENCE_OF_THE_LAZY - 0.1
