"""`import loopfuse`: the functions, what they return and what they raise."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import loopfuse
from broker_fixtures import BrokerProcess, TcpPair, eventually, libraries, tcp_pair
from kept import kept
from loopfuse import _wire as wire
from loopfuse._reasons import Reason
from loopfuse._segments import (
    CONSUMER,
    DIRECTION,
    DIRECTION_SIZE,
    header_of,
    read_segment,
)
from sessions import Session

pytest_plugins = ["broker_fixtures"]
DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def asked(broker: BrokerProcess, library: Path, monkeypatch: pytest.MonkeyPatch) -> BrokerProcess:
    """The broker that this process asks."""
    monkeypatch.setenv("LOOPFUSE_BROKER", str(broker.path))
    monkeypatch.setenv("LOOPFUSE_LIBRARY", str(library))
    return broker


@pytest.fixture
def no_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPFUSE_BROKER", str(tmp_path / "none.sock"))


class Claimed:
    """A pair whose ends were claimed by fake libraries."""

    def __init__(self, pair: TcpPair, segment: int) -> None:
        self.pair = pair
        self.segment = segment

    def mark_ready(self) -> None:
        for index in (0, 1):
            line = header_of(self.segment) + DIRECTION + index * DIRECTION_SIZE
            os.pwrite(self.segment, (1).to_bytes(4, sys.byteorder), line + CONSUMER)


@pytest.fixture(params=["ipv4", "ipv6", "mapped"])
def claimed(request: pytest.FixtureRequest, broker: BrokerProcess) -> Iterator[Claimed]:
    with tcp_pair(request.param) as pair, libraries(broker.path, 2) as (one, other):
        one.claim(pair.client, wire.Side.CLIENT)
        other.claim(pair.server, wire.Side.SERVER)
        yield Claimed(pair, one.receive().fds[0])


# -- connections and defuse -------------------------------------------------------------


def test_connections_have_what_ps_shows(claimed: Claimed) -> None:
    (row,) = loopfuse.connections()
    assert isinstance(row, loopfuse.Connection)
    assert (row.id, row.state, row.reason) == (1, "plain", "none")
    assert row.client.pid == os.getpid()


def test_without_a_broker_there_are_none(no_broker: None) -> None:
    assert loopfuse.connections() == []


@pytest.mark.parametrize("by", ["id", "row", "everything"])
def test_defuse_writes_the_wish(claimed: Claimed, by: str) -> None:
    (row,) = loopfuse.connections()
    if by == "everything":
        answers = loopfuse.defuse(everything=True)
    else:
        answers = loopfuse.defuse(row.id if by == "id" else row)
    assert answers == [loopfuse.DefuseAnswer(1, "defused")]
    assert read_segment(claimed.segment).broker_wish == Reason.REQUEST


def test_defusing_what_is_not_there_raises(claimed: Claimed) -> None:
    with pytest.raises(loopfuse.DefuseError, match="4711 is not known") as caught:
        loopfuse.defuse(1, 4711)
    assert [one.result for one in caught.value.answers] == ["defused", "not-found"]
    assert caught.value.hint is not None


def test_defuse_wants_one_or_everything() -> None:
    with pytest.raises(ValueError):
        loopfuse.defuse()
    with pytest.raises(ValueError):
        loopfuse.defuse(1, everything=True)


def test_defuse_without_a_broker_raises(no_broker: None) -> None:
    with pytest.raises(loopfuse.NoBrokerError, match="no broker is running"):
        loopfuse.defuse(1)


# -- is_fused ---------------------------------------------------------------------------


def test_a_socket_or_a_number_can_be_asked_about(claimed: Claimed) -> None:
    both = (claimed.pair.client, claimed.pair.server)
    assert not any(loopfuse.is_fused(sock) for sock in both)
    claimed.mark_ready()
    assert all(loopfuse.is_fused(sock) for sock in both)
    assert all(loopfuse.is_fused(sock.fileno()) for sock in both)


def test_asking_leaves_the_descriptor_as_it_is(claimed: Claimed) -> None:
    fd = claimed.pair.client.fileno()
    socket.setdefaulttimeout(1.0)
    try:
        assert os.get_blocking(fd) is False  # create_connection had a timeout
        os.set_blocking(fd, True)
        loopfuse.is_fused(fd)
        assert os.get_blocking(fd) is True
    finally:
        socket.setdefaulttimeout(None)
    claimed.pair.client.sendall(b"x")
    assert claimed.pair.server.recv(1) == b"x"


def test_what_is_not_connected_is_not_fused() -> None:
    with socket.socket() as sock:
        assert loopfuse.is_fused(sock) is False
    with tcp_pair() as pair:
        assert loopfuse.is_fused(pair.client) is False


def test_without_a_broker_nothing_is_fused(no_broker: None) -> None:
    with tcp_pair() as pair:
        assert loopfuse.is_fused(pair.client) is False


def test_what_is_no_tcp_socket_raises() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(loopfuse.SocketError, match="not of TCP"):
            loopfuse.is_fused(datagrams)
    one, other = socket.socketpair()
    with one, other, pytest.raises(loopfuse.SocketError, match="not of TCP"):
        loopfuse.is_fused(one)
    with Path("/dev/null").open() as file, pytest.raises(loopfuse.SocketError):
        loopfuse.is_fused(file.fileno())
    for bad in (one, -1, 1 << 20):
        with pytest.raises(loopfuse.SocketError, match="can't be asked about"):
            loopfuse.is_fused(bad)


# -- run and environment ----------------------------------------------------------------


def test_a_program_runs_fused(broker: BrokerProcess) -> None:
    script = "print('libloopfuse' in open('/proc/self/maps').read())"
    done = loopfuse.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n")


def test_its_environment_is_what_was_asked_for(broker: BrokerProcess) -> None:
    told = loopfuse.environment({"A": "b"}, eager=True, after=3)
    assert told["A"] == "b"
    assert told["LOOPFUSE_BROKER"] == str(broker.path)
    assert (told["LOOPFUSE_EAGER"], told["LOOPFUSE_AFTER"]) == ("1", "3")
    assert "HOME" not in told
    done = loopfuse.run(["env"], env={"A": "b", "PATH": os.environ["PATH"]}, capture_output=True)
    assert b"A=b\n" in done.stdout


def test_options_are_those_of_subprocess() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        loopfuse.run(["false"], check=True)
    with pytest.raises(subprocess.TimeoutExpired):
        loopfuse.run(["sleep", "20"], timeout=0.1)


def test_a_broker_is_started_if_there_is_none(tmp_path: Path, no_broker: None) -> None:
    loopfuse.environment()
    from loopfuse._control import fetch_status

    path = tmp_path / "none.sock"
    os.kill(fetch_status(path).pid, 15)
    eventually(lambda: not path.exists(), "it ends")


def test_a_program_that_is_not_there_raises(tmp_path: Path) -> None:
    with pytest.raises(loopfuse.ProgramError, match="no-such-program: no such program on PATH"):
        loopfuse.run(["no-such-program"])
    file = tmp_path / "data"
    file.write_text("not a program")
    with pytest.raises(loopfuse.ProgramError, match="can't be run"):
        loopfuse.run([file])
    with pytest.raises(ValueError):
        loopfuse.run([])


def test_bad_arguments_raise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError):
        loopfuse.environment(after=-1)
    with pytest.raises(loopfuse.PolicyError):
        loopfuse.environment(policy=tmp_path / "none.toml")
    monkeypatch.setenv("LOOPFUSE_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(loopfuse.ProgramError, match="is missing"):
        loopfuse.environment()


# -- the package ------------------------------------------------------------------------


def test_every_error_is_of_one_family() -> None:
    errors = [name for name in loopfuse.__all__ if name.endswith("Error")]
    assert len(errors) > 5
    for name in errors:
        assert issubclass(getattr(loopfuse, name), loopfuse.LoopfuseError)


def test_every_public_name_exists_and_is_documented() -> None:
    page = (DOCS / "api.md").read_text()
    for name in loopfuse.__all__:
        assert getattr(loopfuse, name).__doc__
        assert f"{name}" in page, name
    assert set(loopfuse.__all__) <= set(dir(loopfuse))
    with pytest.raises(AttributeError):
        loopfuse.no_such_name  # noqa: B018


def test_importing_the_package_costs_next_to_nothing() -> None:
    script = "import sys, loopfuse; print([m for m in sys.modules if m.startswith('loopfuse.')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "['loopfuse._version']\n"


def test_it_tells_the_truth_of_real_programs(
    library: Path, broker: BrokerProcess, plain: Session
) -> None:
    session = Session.under(library, broker, eager=True)
    with kept(session, session) as both:
        (row,) = [one for one in loopfuse.connections() if one.server.port == both.port]
        assert row.state == "fused"
    with kept(plain, plain) as both:
        assert not [one for one in loopfuse.connections() if one.server.port == both.port]
