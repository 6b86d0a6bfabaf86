"""`loopfuse why`: each connection of the host, fused or not, and what to change."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker_fixtures import BrokerProcess, TcpPair, eventually, libraries, tcp_pair
from commands import at_terminal, loopfuse
from conftest import tool
from kept import kept
from loopfuse import _wire as wire
from loopfuse._listings import LISTINGS, WhyRow
from loopfuse._why.subject import parse_subject
from loopfuse._why.survey import Survey
from sessions import Session, free_port

pytest_plugins = ["broker_fixtures"]
NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="only root can do this"
)


def rows_of(broker: Path, subject: object) -> list[WhyRow]:
    done = loopfuse(broker, "why", "--json", str(subject))
    assert done.returncode == 0, done.stderr
    rows: list[WhyRow] = msgspec.json.decode(done.stdout, type=LISTINGS["why"], strict=True)
    return rows


def codes(row: WhyRow) -> list[tuple[str, str | None]]:
    return [(cause.code, cause.end) for cause in row.causes]


def row_at(broker: Path, subject: object, port: int) -> WhyRow:
    """The connection to the server at that port. A subject may fit others as well: any process
    may have any port at the other end, and the id of a process may be the number of a port."""
    (row,) = [row for row in rows_of(broker, subject) if row.server.port == port]
    return row


def row_of_pair(broker: Path, pair: TcpPair) -> WhyRow:
    """Nobody listens for a pair any more, so either end may count as the server's."""
    ports = {pair.client.getsockname()[1], pair.server.getsockname()[1]}
    return only_with(ports, rows_of(broker, f":{pair.server.getsockname()[1]}"))


def only_with(ports: set[int], rows: list[WhyRow]) -> WhyRow:
    (row,) = [row for row in rows if {row.client.port, row.server.port} == ports]
    return row


def row_of_process(broker: Path, subject: object, pid: int) -> WhyRow:
    rows = rows_of(broker, subject)
    (row,) = [row for row in rows if pid in (row.client.pid, row.server.pid)]
    return row


def causes_of(broker: Path, port: int) -> list[tuple[str, str | None]]:
    row = row_at(broker, f":{port}", port)
    assert row.state == "plain"
    assert all(cause.words and cause.what_to_change for cause in row.causes)
    return codes(row)


@pytest.fixture
def eager(library: Path, broker: BrokerProcess) -> Session:
    return Session.under(library, broker, eager=True)


@pytest.fixture
def lazy(library: Path, broker: BrokerProcess) -> Session:
    return Session.under(library, broker, eager=False)


# -- what the broker knows --------------------------------------------------------------


def test_a_fused_connection_has_its_id_and_no_cause(eager: Session, broker: BrokerProcess) -> None:
    with kept(eager, eager) as both:
        row = row_at(broker.path, both.server, both.port)
    assert (row.state, row.id, row.causes) == ("fused", 1, [])
    assert row.broker == str(broker.path)
    assert (row.client.pid, row.server.pid) == (both.client, both.server)
    assert row.server.port == both.port


def test_a_defused_one_says_so(eager: Session, broker: BrokerProcess) -> None:
    from loopfuse._control import order_defuse

    with kept(eager, eager) as both:
        order_defuse(broker.path, [1])
        row = row_at(broker.path, both.server, both.port)
        assert row.state in ("defused", "fused")
        if row.state == "defused":
            assert codes(row) == [("request", None)]


def test_a_policy_is_named_with_its_rule(library: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('default = "deny"\n')
    process = BrokerProcess(tmp_path / "broker.sock", "--policy", str(policy))
    try:
        session = Session.under(library, process, eager=True)
        with kept(session, session) as both:
            row = row_at(process.path, both.server, both.port)
    finally:
        process.stop()
    assert codes(row) == [("policy", None)]
    assert row.causes[0].detail == f"the default of {policy}"


def test_the_programs_own_broker_is_asked(
    eager: Session, broker: BrokerProcess, tmp_path: Path
) -> None:
    with kept(eager, eager) as both:
        row = row_at(tmp_path / "another.sock", both.server, both.port)
    assert (row.state, row.broker) == ("fused", str(broker.path))


def test_the_broker_knows_which_end_is_the_client(broker: BrokerProcess) -> None:
    """Nobody listens any more, so that the ports alone would have to tell."""
    for _ in range(8):
        with tcp_pair() as pair, libraries(broker.path, 1) as (one,):
            one.claim(pair.client, wire.Side.CLIENT)
            one.settle()
            assert row_of_pair(broker.path, pair).client.port == pair.client.getsockname()[1]


# -- what it never heard of -------------------------------------------------------------


def test_a_program_may_be_named_by_a_link_to_it(
    plain: Session, broker: BrokerProcess, tmp_path: Path
) -> None:
    """As Debian's /usr/bin/redis-server is one."""
    link = tmp_path / "as-it-is-known"
    with kept(plain, plain) as both:
        link.symlink_to(Path(f"/proc/{both.server}/exe").resolve())
        assert row_at(broker.path, link, both.port).server.pid == both.server


def test_two_ordinary_programs(plain: Session, broker: BrokerProcess) -> None:
    with kept(plain, plain) as both:
        assert causes_of(broker.path, both.port) == [("no-library", None)]


@pytest.mark.parametrize("missing", ["client", "server"])
def test_one_ordinary_program(
    plain: Session, lazy: Session, broker: BrokerProcess, missing: str
) -> None:
    sessions = {"client": lazy, "server": lazy, missing: plain}
    with kept(sessions["client"], sessions["server"]) as both:
        assert causes_of(broker.path, both.port) == [("no-library", missing)]


@pytest.mark.parametrize(
    ("program", "code"), [("holder-static", "static-program"), ("holder", "privileged-program")]
)
def test_programs_that_cant_load_the_library(
    broker: BrokerProcess, programs: Path, tmp_path: Path, program: str, code: str
) -> None:
    binary = tmp_path / f"lfw{os.getpid()}"
    shutil.copy(programs / program, binary)
    if code == "privileged-program":
        binary.chmod(0o4755)
    with tcp_pair() as pair:
        port = pair.server.getsockname()[1]
        given = str(pair.server.fileno())
        command = [str(binary), "inherited", given, "1000"]
        holder = subprocess.Popen(command, pass_fds=[pair.server.fileno()])
        pair.server.close()
        try:
            eventually(lambda: Path(f"/proc/{holder.pid}/exe").resolve() == binary, "it runs")
            row = row_of_process(broker.path, holder.pid, holder.pid)
            by_end = {cause.end: cause.code for cause in row.causes}
            held = "server" if row.server.port == port else "client"
            assert by_end[held] == code
            assert rows_of(broker.path, binary.name) == [row]
        finally:
            holder.kill()
            holder.wait()


def test_programs_that_have_not_asked(lazy: Session, broker: BrokerProcess) -> None:
    with kept(lazy, lazy, rounds=1) as both:
        assert causes_of(broker.path, both.port) == [("not-asked", None)]


def test_a_broker_that_has_gone(lazy: Session, broker: BrokerProcess) -> None:
    with kept(lazy, lazy, rounds=1) as both:
        broker.kill()
        row = row_at(broker.path, both.port, both.port)
    assert codes(row) == [("no-broker", None)]
    assert str(broker.path) in row.causes[0].what_to_change


def test_two_brokers(
    library: Path, lazy: Session, session_broker: BrokerProcess, broker: BrokerProcess
) -> None:
    other = Session.under(library, session_broker, eager=False)
    with kept(lazy, other, rounds=1) as both:
        assert causes_of(broker.path, both.port) == [("other-broker", None)]


def test_a_process_with_a_ring_that_the_kernel_polls(lazy: Session, broker: BrokerProcess) -> None:
    script = (
        "import ctypes, socket, struct, sys\n"
        "libc = ctypes.CDLL(None)\n"
        "polled = ctypes.create_string_buffer(struct.pack('=III', 0, 0, 2), 120)\n"
        "if libc.syscall(425, 4, polled) < 0: sys.exit(3)\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "client = socket.create_connection(listener.getsockname()); server, _ = listener.accept()\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(port)],
        env=lazy.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        if not process.stdout.readline():
            pytest.skip("this kernel has no io_uring")
        assert ("io-outside-libc", None) in causes_of(broker.path, port)
        process.kill()


def test_a_connection_nobody_has_accepted(broker: BrokerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()):
            assert causes_of(broker.path, listener.getsockname()[1]) == [("not-accepted", None)]


def test_a_connection_that_closes(broker: BrokerProcess) -> None:
    with tcp_pair() as pair:
        pair.client.shutdown(socket.SHUT_WR)
        assert codes(row_of_pair(broker.path, pair)) == [("too-late", None)]


def test_a_socket_connected_to_itself(broker: BrokerProcess) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        sock.connect(("127.0.0.1", port))
        assert causes_of(broker.path, port) == [("self-connection", None)]


@NEEDS_ROOT
def test_an_end_in_another_namespace(broker: BrokerProcess) -> None:
    ip, unshare, nsenter = tool("ip"), tool("unshare"), tool("nsenter")
    inside = subprocess.Popen([unshare, "--net", "sleep", "60"])
    name = f"lfw{os.getpid()}"
    server = (
        "import socket; listener = socket.create_server(('198.51.100.2', 7777));"
        "print('ready', flush=True); sock, _ = listener.accept(); sock.recv(1)"
    )
    talker: subprocess.Popen[bytes] | None = None
    here = Path("/proc/self/ns/net").readlink()
    try:
        eventually(lambda: Path(f"/proc/{inside.pid}/ns/net").readlink() != here, "it has moved")
        peer = [ip, "link", "add", name, "type", "veth", "peer", "name", "lfw0", "netns"]
        if subprocess.run([*peer, str(inside.pid)], check=False).returncode:
            pytest.skip("no veth devices here")
        enter = [nsenter, "-t", str(inside.pid), "-n"]
        for words in (
            [ip, "addr", "add", "198.51.100.1/24", "dev", name],
            [ip, "link", "set", name, "up"],
            [*enter, ip, "addr", "add", "198.51.100.2/24", "dev", "lfw0"],
            [*enter, ip, "link", "set", "lfw0", "up"],
        ):
            subprocess.run(words, check=True)
        talker = subprocess.Popen([*enter, sys.executable, "-c", server], stdout=subprocess.PIPE)
        assert talker.stdout is not None and talker.stdout.readline() == b"ready\n"
        with socket.create_connection(("198.51.100.2", 7777), timeout=10):
            eventually(lambda: len(rows_of(broker.path, ":7777")) == 2, "both ends are seen")
            for row in rows_of(broker.path, ":7777"):
                assert codes(row) == [("other-namespace", None)]
            row = row_of_process(broker.path, talker.pid, talker.pid)
            assert row.server.pid == talker.pid
    finally:
        for process in (talker, inside):
            if process is not None:
                process.kill()
                process.communicate()
        subprocess.run([ip, "link", "del", name], check=False, stderr=subprocess.DEVNULL)


def _as_another_user(broker: Path, subject: str) -> Any:
    """What a survey by another user's process finds."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.closerange(3, writing)  # not a holder of the parent's sockets
            os.closerange(writing + 1, 1 << 16)
            os.setgroups([])
            os.setresgid(61001, 61001, 61001)
            os.setresuid(61001, 61001, 61001)
            said: object = Survey(broker).look(parse_subject(subject))
        except BaseException as error:
            said = repr(error)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(said))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pickle.loads(pipe.read())
    os.waitpid(pid, 0)
    return said


@NEEDS_ROOT
def test_somebody_elses_processes_are_named_as_hidden(broker: BrokerProcess) -> None:
    with tcp_pair() as pair:
        ports = {pair.client.getsockname()[1], pair.server.getsockname()[1]}
        rows, _ = _as_another_user(broker.path, f":{pair.server.getsockname()[1]}")
    row = only_with(ports, rows)
    assert codes(row) == [("hidden-process", None)]
    assert "root" in row.causes[0].words
    assert (row.client.pid, row.client.uid) == (None, 0)


# -- what was asked about ---------------------------------------------------------------


def test_without_an_argument_all_of_ones_own_are_listed(broker: BrokerProcess) -> None:
    with tcp_pair() as pair:
        done = loopfuse(broker.path, "why")
        assert done.returncode == 0
        assert f"127.0.0.1:{pair.server.getsockname()[1]}" in done.stdout


@pytest.mark.parametrize(
    "subject",
    ["no-such-program", "/no/such/program", "no-*-program", ":1", "4194303", ":65536", "99999999",
     "9" * 5000, "", ":", ":x", "-1", "a b"],
)  # fmt: skip
def test_what_is_not_here_is_2(broker: BrokerProcess, subject: str) -> None:
    done = loopfuse(broker.path, "why", "--", subject)
    assert done.returncode == 2, done.stdout
    assert done.stdout == ""
    assert "Error:" in done.stderr
    assert re.search(r"\.$", done.stderr.strip())


def test_a_listener_without_connections_is_told(broker: BrokerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = loopfuse(broker.path, "why", f":{port}")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"listens at port {port}; nobody is connected" in done.stdout
        done = loopfuse(broker.path, "why", "--json", f":{port}")
        assert json.loads(done.stdout) == []
        assert "nobody is connected" in done.stderr


def test_a_process_without_connections_is_told(broker: BrokerProcess) -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        eventually(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "it runs")
        done = loopfuse(broker.path, "why", str(process.pid))
        assert done.returncode == 0
        assert f"sleep (pid {process.pid})" in done.stdout
        assert "not under loopfuse" in done.stdout
    finally:
        process.kill()
        process.wait()


def test_a_program_is_found_by_name_path_and_pattern(
    plain: Session, broker: BrokerProcess, programs: Path
) -> None:
    with kept(plain, plain) as both:
        comm = Path(f"/proc/{both.client}/comm").read_text().strip()
        path = Path(f"/proc/{both.client}/exe").readlink()
        for subject in (comm, f"{comm[:-1]}?", str(path), f"{path.parent}/*"):
            ports = [row.server.port for row in rows_of(broker.path, subject)]
            assert both.port in ports, subject


# -- how it is printed ------------------------------------------------------------------


def test_a_pipe_gets_whole_lines_without_colour(plain: Session, broker: BrokerProcess) -> None:
    with kept(plain, plain) as both:
        done = loopfuse(broker.path, "why", f":{both.port}", COLUMNS="40")
    said = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    begin = said.index("plain TCP: no-library")
    assert said[begin + 1].endswith("does not run under loopfuse: it was started without.")
    assert said[begin + 2].startswith("  -> End ")
    (row,) = [line for line in said if f"/{both.client} 127.0.0.1:" in line]
    assert row.endswith(f"/{both.server} 127.0.0.1:{both.port}")


@pytest.mark.parametrize("listing", [["why"], ["doctor"]])
def test_a_terminal_of_80_columns_gets_colours(
    plain: Session, broker: BrokerProcess, listing: list[str]
) -> None:
    with kept(plain, plain):
        said = at_terminal(broker.path, *listing)
    assert "\x1b[" in said
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("listing", [["why"], ["ps"], ["doctor"]])
def test_no_color_is_honoured(plain: Session, broker: BrokerProcess, listing: list[str]) -> None:
    with kept(plain, plain):
        assert "\x1b" not in at_terminal(broker.path, *listing, NO_COLOR="1")


def cpu_of_children() -> float:
    """Seconds, of those that have ended: unlike a clock's, few more on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_it_is_quick_with_many_connections(broker: BrokerProcess) -> None:
    pairs = []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        try:
            for _ in range(400):
                client = socket.create_connection(listener.getsockname())
                pairs += [client, listener.accept()[0]]
            before = cpu_of_children()
            port = listener.getsockname()[1]
            rows = rows_of(broker.path, f":{port}")
            assert cpu_of_children() - before < 5
        finally:
            for sock in pairs:
                sock.close()
    assert sum(row.server.port == port for row in rows) == 400
