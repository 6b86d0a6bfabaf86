"""Several users and several network namespaces at one broker. Needs root."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker_fixtures import (
    PATIENCE,
    START,
    BrokerProcess,
    FakeLibrary,
    answers,
    claim_of,
    eventually,
    libraries,
    tcp_pair,
)
from loopfuse import _wire as wire
from loopfuse._broker import Options
from loopfuse._broker_start import run_in_foreground
from loopfuse._broker_state.verify import INTERFACES_INTERVAL
from loopfuse._control import order_defuse
from loopfuse._matching import local_end, remote_end
from loopfuse._messages import DefuseAnswer
from loopfuse._reasons import Reason
from loopfuse._sockdiag import SockDiag

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"),
    reason="only root can act as other users and make network namespaces",
)
CLIENT, SERVER = wire.Side.CLIENT, wire.Side.SERVER
ALICE, BOB = 61001, 61002
_IP_TRANSPARENT = 19
Answer = wire.FromBroker


class Person:
    """A process of another user, which does what it is told. Forked, since that user may
    not be able to run our interpreter."""

    def __init__(self, uid: int) -> None:
        self._here, there = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._here.close()
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                _obey(there)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        there.close()

    def do(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Calls a function there; what it returns, or raised."""
        self._here.sendall(_packed((function, arguments)))
        kind, value = pickle.loads(_read(self._here))
        if kind == "raised":
            raise AssertionError(f"in the other process: {value}")
        return value

    def leave(self) -> None:
        self._here.close()
        os.waitpid(self.pid, 0)


def _packed(value: object) -> bytes:
    data = pickle.dumps(value)
    return len(data).to_bytes(4, "big") + data


def _read(sock: socket.socket) -> bytes:
    with sock.makefile("rb", buffering=0) as file:
        size = file.read(4)
        return file.read(int.from_bytes(size, "big")) if size else b""


def _obey(sock: socket.socket) -> None:
    while order := _read(sock):
        function, arguments = pickle.loads(order)
        try:
            reply = ("returned", function(*arguments))
        except Exception:
            reply = ("raised", traceback.format_exc())
        sock.sendall(_packed(reply))
    os._exit(0)


# What a person may be told to do. The state is the process's own.
_library: FakeLibrary
_socket: socket.socket


def meet(path: Path) -> None:
    global _library
    _library = FakeLibrary(path)


def connect_to(port: int) -> wire.Claim:
    global _socket
    _socket = socket.socket()
    _socket.connect(("127.0.0.1", port))
    return claim_of(_socket, CLIENT)


def change_user(uid: int) -> None:
    os.setresuid(uid, uid, uid)


def claim(own: wire.Claim) -> None:
    _library.send(wire.pack_claim(own))


def answer() -> Answer:
    return _library.receive().body


def serve_as_broker(path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        run_in_foreground(path, Options(idle_exit=1.0))
        os._exit(0)


@contextmanager
def person(uid: int) -> Iterator[Person]:
    somebody = Person(uid)
    try:
        yield somebody
    finally:
        somebody.leave()


@pytest.fixture
def system_broker(open_folder: Path) -> Iterator[BrokerProcess]:
    """Root's broker."""
    process = BrokerProcess(open_folder / "broker.sock", "--log-level", "debug")
    yield process
    code, said = process.stop()
    assert code == 0 and "Traceback" not in said, said


@contextmanager
def connected(somebody: Person) -> Iterator[tuple[wire.Claim, socket.socket]]:
    """A connection from that person to us: its claim, our socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = somebody.do(connect_to, listener.getsockname()[1])
        server, _ = listener.accept()
        with server:
            yield own, server


def test_roots_broker_pairs_two_users(system_broker: BrokerProcess) -> None:
    with person(ALICE) as alice, libraries(system_broker.path, 1) as (root,):
        alice.do(meet, system_broker.path)
        with connected(alice) as (own, server):
            alice.do(claim, own)
            root.claim(server, SERVER)
            assert isinstance(root.receive().body, wire.Fuse)
            assert isinstance(alice.do(answer), wire.Fuse)
            (row,) = system_broker.rows()
            assert (row.client.uid, row.server.uid) == (ALICE, 0)


def test_nobody_can_claim_what_belongs_to_another_user(system_broker: BrokerProcess) -> None:
    with person(ALICE) as alice, person(BOB) as bob:
        bob.do(meet, system_broker.path)
        with connected(alice) as (own, _):
            bob.do(claim, own)
            refused = bob.do(answer)
            assert isinstance(refused, wire.Refuse)
            assert refused.reason == Reason.NOT_VERIFIED


def test_transparent_sockets_are_not_taken_for_each_others_ends(
    system_broker: BrokerProcess,
) -> None:
    """A proxy that takes both its clients' and its servers' addresses has sockets whose addresses
    mirror each other, and which are connected to others."""
    with libraries(system_broker.path, 1) as (proxy,), socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            with listener.accept()[0] as server:
                proxy.claim(server, SERVER)
                answer = proxy.receive().body
                assert isinstance(answer, wire.Refuse)
                assert answer.reason == Reason.NOT_VERIFIED
                proxy.claim(client, CLIENT)
                assert isinstance(proxy.receive().body, wire.Refuse)


def test_nobody_can_decline_what_belongs_to_another_user(system_broker: BrokerProcess) -> None:
    with person(ALICE) as alice, person(BOB) as bob:
        bob.do(meet, system_broker.path)
        with connected(alice) as (own, _):
            bob.do(claim, own._replace(declined=True, reason=int(Reason.STDIO)))
            assert system_broker.rows() == []


def test_a_program_that_changed_its_user_is_known_by_its_descriptors(
    system_broker: BrokerProcess,
) -> None:
    """As nginx does: sockets made by root, used by www-data."""
    with (
        person(0) as worker,
        libraries(system_broker.path, 1) as (root,),
        connected(worker) as (own, server),
    ):
        worker.do(change_user, ALICE)
        worker.do(meet, system_broker.path)
        worker.do(claim, own)
        root.claim(server, SERVER)
        assert isinstance(worker.do(answer), wire.Fuse)


_PRIVILEGED = """
#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	connect(fd, (struct sockaddr *)&address, sizeof(address));
	return pause() + argc;
}
"""


def become(program: Path, port: int) -> None:
    """The process that has met the broker becomes that program. A child of it does as it is told
    from then on, with the connection to the broker."""
    if os.fork():
        os.execv(program, [str(program), str(port)])


def claim_and_hear(own: wire.Claim) -> int:
    claim(own)
    refused = answer()
    assert isinstance(refused, wire.Refuse), refused
    return refused.reason


def test_nobody_can_claim_a_socket_of_a_setuid_program_that_he_became(
    system_broker: BrokerProcess, open_folder: Path, tmp_path: Path
) -> None:
    """What the broker knows of a client's process, by number, may be another program by now."""
    source, program = tmp_path / "privileged.c", open_folder / "privileged"
    source.write_text(_PRIVILEGED)
    subprocess.run(["gcc", "-o", program, source], check=True)
    program.chmod(0o4755)
    with person(ALICE) as alice, socket.create_server(("127.0.0.1", 0)) as listener:
        alice.do(meet, system_broker.path)
        try:
            alice.do(become, program, listener.getsockname()[1])
            server, _ = listener.accept()
            with server:
                ours = claim_of(server, SERVER)
                own = ours._replace(
                    side=CLIENT,
                    cookie=cookie_of_peer(ours),
                    local_port=ours.remote_port,
                    remote_port=ours.local_port,
                )
                assert alice.do(claim_and_hear, own) == Reason.NOT_VERIFIED
        finally:
            os.kill(alice.pid, signal.SIGKILL)


def cookie_of_peer(claim: wire.Claim) -> int:
    """SO_COOKIE of the other end: who wants to lie need not guess it."""
    diag = SockDiag()
    info = diag.lookup(remote_end(claim), local_end(claim))
    diag.close()
    assert info is not None
    return info.cookie


def begin_tap(path: Path) -> tuple[int, int, int]:
    """How many connections it sees, how many it may not, and descriptors that came."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(PATIENCE)
    sock.connect(os.fspath(path))
    sock.send(b'{"request":"tap"}')
    descriptors = 0
    while True:
        packet, fds, _, _ = socket.recv_fds(sock, 65536, 4)
        descriptors += len(fds)
        event = json.loads(packet)
        if event["event"] == "started":
            return event["seen"], event["foreign"], descriptors


def test_nobody_can_tap_other_users_connections(system_broker: BrokerProcess) -> None:
    path = system_broker.path
    with person(ALICE) as alice, person(BOB) as bob, libraries(path, 1) as (root,):
        alice.do(meet, path)
        with connected(alice) as (own, server):
            alice.do(claim, own)
            root.claim(server, SERVER)
            assert isinstance(alice.do(answer), wire.Fuse)
            assert bob.do(begin_tap, path) == (0, 1, 0)
            assert alice.do(begin_tap, path) == (1, 0, 2)


def test_only_owners_may_order_a_defuse(system_broker: BrokerProcess) -> None:
    path = system_broker.path
    with person(ALICE) as alice, person(BOB) as bob, libraries(path, 1) as (root,):
        alice.do(meet, path)
        with connected(alice) as (own, server):
            alice.do(claim, own)
            root.claim(server, SERVER)
            fused = alice.do(answer)
            assert isinstance(fused, wire.Fuse)
            number = fused.pair_id
            assert bob.do(order_defuse, path, [number]) == [DefuseAnswer(number, "not-permitted")]
            assert bob.do(order_defuse, path, None) == []
            assert alice.do(order_defuse, path, [number]) == [DefuseAnswer(number, "defused")]


def test_an_ordinary_users_broker_pairs_that_user_only(open_folder: Path) -> None:
    with person(ALICE) as alice:
        home = open_folder / "alice"
        home.mkdir()
        os.chown(home, ALICE, ALICE)
        path = home / "broker.sock"
        alice.do(serve_as_broker, path)
        eventually(lambda: bool(alice.do(answers, path)), "it listens", START)
        alice.do(meet, path)
        with connected(alice) as (own, _server_of_root):
            alice.do(claim, own)
            refused = alice.do(answer)
            assert isinstance(refused, wire.Refuse)
            assert refused.reason == Reason.FOREIGN_USER


# -- network namespaces -------------------------------------------------------------------

_ELSEWHERE = """
import socket, sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from broker_fixtures import FakeLibrary
from loopfuse import _wire as wire
library = FakeLibrary(Path(sys.argv[1]))
listener = socket.create_server(("127.0.0.1", 40000))
client = socket.socket()
client.bind(("127.0.0.1", 40001))
client.connect(("127.0.0.1", 40000))
server, _ = listener.accept()
lie = {"netns_cookie": int(sys.argv[3])} if sys.argv[3] != "-" else {}
library.claim(client, wire.Side.CLIENT, **lie)
print(type(library.receive().body).__name__ if lie else "claimed", flush=True)
sys.stdin.readline()
library.claim(server, wire.Side.SERVER)
print(*sorted(type(library.receive().body).__name__ for _ in range(2)), flush=True)
sys.stdin.readline()
"""


@contextmanager
def elsewhere(
    path: Path, lie: str = "-", program: str = _ELSEWHERE
) -> Iterator[subprocess.Popen[str]]:
    """A process in a network namespace of its own, with a connection whose client end it
    has claimed. The addresses are the same each time."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        if os.environ.get("CI"):
            pytest.fail("unshare or ip is missing")
        pytest.skip("needs unshare and ip (util-linux, iproute2)")
    inner = [sys.executable, "-c", program, str(path), str(Path(__file__).parent), lie]
    command = ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *inner]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


_TWO_DEVICES = """
import ctypes, os, socket, subprocess, sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from broker_fixtures import FakeLibrary
from loopfuse import _wire as wire

def sh(commands):
    subprocess.run(commands, shell=True, check=True)

def address(host, port, device):
    return host, port, 0, socket.if_nametoindex(device)

def listen(device):
    listener = socket.socket(socket.AF_INET6)
    listener.bind(address("fe80::2", 2000, device))
    listener.listen()
    return listener

def connect(device):
    client = socket.socket(socket.AF_INET6)
    client.settimeout(20)
    client.bind(address("fe80::1", 1000, device))
    client.connect(address("fe80::2", 2000, device))
    return client

here, there = socket.socketpair()
child = os.fork()
if child == 0:
    here.close()
    assert ctypes.CDLL(None).unshare(0x40000000) == 0
    there.send(b"1")
    there.recv(1)
    sh("ip addr add fe80::2/64 dev vax nodad; ip addr add fe80::1/64 dev vbx nodad")
    sh("ip link set vax up; ip link set vbx up")
    listener = listen("vax")
    there.send(b"2")
    there.recv(1)
    client = connect("vbx")
    there.send(b"3")
    there.recv(1)
    os._exit(0)
there.close()
here.recv(1)
for device, host in (("va", "fe80::1"), ("vb", "fe80::2")):
    sh(f"ip link add {device} type veth peer name {device}x netns {child}")
    sh(f"ip addr add {host}/64 dev {device} nodad; ip link set {device} up")
listener = listen("vb")
here.send(b"1")
here.recv(1)
here.send(b"2")
client = connect("va")
server, _ = listener.accept()
here.recv(1)
library = FakeLibrary(Path(sys.argv[1]))
library.claim(client, wire.Side.CLIENT)
library.claim(server, wire.Side.SERVER)
print(*sorted(type(library.receive().body).__name__ for _ in range(2)), flush=True)
here.close()
os.waitpid(child, 0)
"""


def test_equal_link_local_addresses_at_two_devices_are_not_mixed_up(
    system_broker: BrokerProcess,
) -> None:
    """Both connections lead to another host; the ends that are here mirror each other."""
    with elsewhere(system_broker.path, program=_TWO_DEVICES) as host:
        assert said(host) == "Refuse Refuse"


_LATE_DEVICE = """
import os, socket, sys
sys.path[:0] = [sys.argv[2]]
from pathlib import Path
from broker_fixtures import FakeLibrary, connect_pair
from loopfuse import _wire as wire

library = FakeLibrary(Path(sys.argv[1]))
early = connect_pair("ipv4")
library.claim(early.client, wire.Side.CLIENT)  # the broker looks at the namespace
library.settle()
print("claimed", flush=True)
sys.stdin.readline()
assert os.system(
    "ip link add late type veth peer name far && ip addr add fe80::7/64 dev late nodad"
    " && ip link set far up && ip link set late up"
) == 0
listener = socket.socket(socket.AF_INET6)
listener.bind(("fe80::7", 0, 0, socket.if_nametoindex("late")))
listener.listen()
client = socket.socket(socket.AF_INET6)
client.connect(listener.getsockname())
server, _ = listener.accept()
library.claim(client, wire.Side.CLIENT)
library.claim(server, wire.Side.SERVER)
print(*sorted(type(library.receive().body).__name__ for _ in range(2)), flush=True)
"""


def test_a_device_that_comes_later_is_known(system_broker: BrokerProcess) -> None:
    with elsewhere(system_broker.path, program=_LATE_DEVICE) as process:
        assert said(process) == "claimed"
        time.sleep(INTERFACES_INTERVAL)
        go_on(process)
        assert said(process) == "Fuse Fuse"


def test_equal_addresses_in_two_namespaces_are_not_mixed_up(
    system_broker: BrokerProcess,
) -> None:
    with elsewhere(system_broker.path) as one, elsewhere(system_broker.path) as other:
        assert (said(one), said(other)) == ("claimed", "claimed")
        rows = system_broker.rows()
        assert [row.reason for row in rows] == ["no-counterpart"] * 2
        assert len({(row.client.addr, row.client.port) for row in rows}) == 1
        go_on(other)
        assert said(other) == "Fuse Fuse"
        reasons = {row.client.pid: row.reason for row in system_broker.rows()}
        assert reasons == {one.pid: "no-counterpart", other.pid: "none"}


def test_a_namespace_is_let_go_of_with_its_last_connection(system_broker: BrokerProcess) -> None:
    with tcp_pair() as pair, libraries(system_broker.path, 1) as (here,):
        here.claim(pair.client, CLIENT)
        here.settle()
        before = system_broker.descriptors()
        with elsewhere(system_broker.path) as process:
            assert said(process) == "claimed"
            assert system_broker.descriptors() > before
        eventually(lambda: system_broker.descriptors() == before, "the namespace is let go of")


def test_a_connection_in_another_namespace_can_not_pass_for_one_of_ours(
    system_broker: BrokerProcess,
) -> None:
    with tcp_pair() as pair:
        ours = str(claim_of(pair.client, CLIENT).netns_cookie)
        with elsewhere(system_broker.path, ours) as process:
            assert said(process) == "Refuse"


def test_closing_in_another_namespace_is_noticed(system_broker: BrokerProcess) -> None:
    with elsewhere(system_broker.path) as process:
        assert said(process) == "claimed"
        go_on(process)
        assert said(process) == "Fuse Fuse"
        assert [row.state for row in system_broker.rows()] == ["plain"]
    eventually(lambda: [r.state for r in system_broker.rows()] == ["closed"], "it is closed")
