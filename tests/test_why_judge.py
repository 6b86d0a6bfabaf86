"""Judging connections that no test can make on one host without much ado."""

from __future__ import annotations

import os
import socket

from broker_fixtures import tcp_pair
from loopfuse._elf import Obstacle
from loopfuse._kernel import command_name
from loopfuse._matching import Endpoint
from loopfuse._messages import EndRow, Row
from loopfuse._sockdiag import State, TcpSocket
from loopfuse._why.holders import Process
from loopfuse._why.judge import Surroundings, judge
from loopfuse._why.links import End, Link
from loopfuse._why.namespaces import is_local, sockets_here, sockets_of

CLIENT = Endpoint(bytes([127, 0, 0, 1]), 40000)
SERVER = Endpoint(bytes([192, 0, 2, 1]), 80)
AROUND = Surroundings(None, "/broker.sock", None, False, True, False, {1000: "alice"})


def process(**facts: object) -> Process:
    """A process of which these facts are known already."""
    made = Process(4242, set())
    made.__dict__.update(
        {"comm": "prog", "uid": 0, "has_library": True, "broker": "/b", "obstacle": None, **facts}
    )
    return made


def end(endpoint: Endpoint, other: Endpoint, *holders: Process, inode: int = 7) -> End:
    found = TcpSocket(endpoint, other, State.ESTABLISHED, 1000, inode)
    return End(endpoint, found, list(holders))


def link(client: End, server: End) -> Link:
    return Link(None, client, server)


def codes(one: Link, around: Surroundings = AROUND) -> list[tuple[str, str | None]]:
    return [(cause.code, cause.end) for cause in judge(one, around)]


def test_an_end_on_another_host() -> None:
    lone = link(end(CLIENT, SERVER, process()), End(SERVER, None, []))
    assert codes(lone, AROUND._replace(other_end_is_local=False)) == [("remote-host", None)]
    assert codes(lone) == [("no-other-end", None)]
    assert codes(lone, AROUND._replace(other_end_is_abroad=True)) == [("other-namespace", None)]


def test_the_kernel_explains_what_the_broker_could_not_verify() -> None:
    lone = link(end(CLIENT, SERVER, process()), End(SERVER, None, []))
    ends = [EndRow(1, "prog", 0, one.text(), one.port) for one in (CLIENT, SERVER)]
    row = Row(1, "plain", "not-verified", None, "ipv4", *ends, 0, 0, "", 0)
    around = AROUND._replace(row=row, other_end_is_local=False)
    assert codes(lone, around) == [("remote-host", None)]
    both = link(end(CLIENT, SERVER, process()), end(SERVER, CLIENT, process()))
    assert codes(both, around) == [("not-verified", None)]


def test_two_users_need_roots_broker() -> None:
    both = link(end(CLIENT, SERVER, process()), end(SERVER, CLIENT, process(uid=1)))
    assert codes(both) == [("foreign-user", None)]
    assert codes(both, AROUND._replace(crosses_users=True)) == [("not-asked", None)]


def test_a_broker_that_answers_nonsense_is_quoted() -> None:
    both = link(end(CLIENT, SERVER, process()), end(SERVER, CLIENT, process()))
    (cause,) = judge(both, AROUND._replace(failure="it speaks another language"))
    assert (cause.code, cause.detail) == ("no-broker", "it speaks another language")
    assert "/broker.sock" in cause.words


def test_programs_that_cant_load_it_are_told_apart() -> None:
    one = process(has_library=False, obstacle=Obstacle.MUSL, comm="a")
    other = process(has_library=False, obstacle=Obstacle.FOREIGN, comm="b")
    both = link(end(CLIENT, SERVER, one), end(SERVER, CLIENT, other))
    assert codes(both) == [("musl-program", "client"), ("foreign-program", "server")]
    assert judge(both, AROUND)[1].words.startswith("b is built for another machine")


def test_a_user_whose_processes_are_hidden_is_named() -> None:
    (cause,) = judge(link(end(CLIENT, SERVER, process()), end(SERVER, CLIENT)), AROUND)
    assert (cause.code, cause.end) == ("hidden-process", "server")
    assert "user alice" in cause.words


def test_a_socket_that_several_processes_hold() -> None:
    shared = end(SERVER, CLIENT, process(), process())
    both = link(end(CLIENT, SERVER, process()), shared)
    assert codes(both) == [("not-asked", "client"), ("shared-descriptor", "server")]


def test_addresses_of_this_host_are_known() -> None:
    assert is_local(Endpoint(bytes([127, 0, 0, 9]), 1))
    assert is_local(Endpoint(socket.inet_pton(socket.AF_INET6, "::1"), 1))
    assert not is_local(SERVER)


def test_proc_and_sock_diag_tell_the_same() -> None:
    for kind in ("ipv4", "ipv6", "mapped"):
        with tcp_pair(kind) as pair:
            port = pair.server.getsockname()[1]

            def of_pair(found: list[TcpSocket], port: int = port) -> set[TcpSocket]:
                return {one for one in found if port in (one.local.port, one.remote.port)}

            here = of_pair(sockets_here())
            assert len(here) == 2
            assert of_pair(sockets_of(os.getpid())) == here


def test_a_name_cant_move_the_cursor() -> None:
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/comm", "w") as comm:  # noqa: PTH123
            comm.write("\x1b[2J\nroot")
        os.kill(os.getpid(), 19)  # SIGSTOP
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    try:
        assert command_name(pid) == "?[2J?root"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
