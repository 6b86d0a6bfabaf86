"""Where the broker is, how it is started, and how it leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_fixtures import (
    PATIENCE,
    START,
    BrokerProcess,
    FakeLibrary,
    eventually,
    libraries,
    no_broker_at,
    tcp_pair,
)
from commands import LOOPFUSE
from loopfuse import _runtime_dir
from loopfuse import _wire as wire
from loopfuse._broker_start import answers
from loopfuse._control import fetch_status
from loopfuse._errors import BrokerError, LoopfuseError, RuntimeDirError

pytest_plugins = ["broker_fixtures"]

_ENSURE = "from loopfuse._runtime_dir import ensure_broker; print(ensure_broker())"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket path for brokers that start by themselves; ended afterwards."""
    where = tmp_path / "broker.sock"
    monkeypatch.setenv("LOOPFUSE_BROKER", str(where))
    yield where
    for pid in brokers_of(where):
        os.kill(pid, signal.SIGKILL)


def brokers_of(path: Path) -> list[int]:
    """Processes that were started as the broker of this path."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"loopfuse._broker_start" in words and os.fsencode(path) in words:
            found.append(int(entry.name))
    return found


def test_the_first_one_starts_it_and_the_next_finds_it(path: Path) -> None:
    assert _runtime_dir.ensure_broker() == path
    first = fetch_status(path).pid
    assert _runtime_dir.ensure_broker() == path
    assert fetch_status(path).pid == first
    assert brokers_of(path) == [first]


def test_many_at_once_start_one(path: Path) -> None:
    command = [sys.executable, "-c", _ENSURE]
    starters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = [starter.communicate(timeout=START)[0].strip() for starter in starters]
    assert said == [str(path)] * 8
    assert len(brokers_of(path)) == 1


def test_the_started_broker_is_nobodys_child_and_inherits_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPFUSE_EAGER", "1")
    monkeypatch.setenv("LOOPFUSE_AFTER", "3")
    read, write = os.pipe()
    os.set_inheritable(write, True)
    _runtime_dir.ensure_broker()
    os.close(write)
    assert os.read(read, 1) == b"", "the broker holds a pipe of ours"
    os.close(read)
    pid = fetch_status(path).pid
    process = Path(f"/proc/{pid}")
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    parent, _, session = map(int, fields[1:4])
    assert parent != os.getpid()
    assert session not in (os.getsid(0), pid)  # no terminal of ours, and none of its own
    assert (process / "cwd").readlink() == Path("/")
    assert b"LOOPFUSE" not in (process / "environ").read_bytes()
    assert b"LD_PRELOAD" not in (process / "environ").read_bytes()
    outputs = {(process / "fd" / str(fd)).readlink().name for fd in range(3)}
    assert outputs == {"null", path.name + ".log"}


def test_a_preloaded_starter_does_not_preload_the_broker(path: Path) -> None:
    environment = {**os.environ, "LD_PRELOAD": "libm.so.6"}
    command = [sys.executable, "-c", _ENSURE]
    subprocess.run(command, env=environment, check=True, timeout=START, stdout=subprocess.DEVNULL)
    environ = Path(f"/proc/{fetch_status(path).pid}/environ").read_bytes()
    assert b"LD_PRELOAD" not in environ


def test_a_killed_brokers_socket_file_is_replaced(path: Path) -> None:
    _runtime_dir.ensure_broker()
    killed = fetch_status(path).pid
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: not answers(path), "it is dead")
    assert path.exists()
    _runtime_dir.ensure_broker()
    assert fetch_status(path).pid != killed


def test_a_socket_file_of_nobody_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(str(path))
    _runtime_dir.ensure_broker()
    assert answers(path)


def test_another_file_in_its_place_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(BrokerError, match=r"(not a socket|reached)"):
        _runtime_dir.ensure_broker()
    assert path.read_text() == "precious"


def test_a_stopped_broker_is_an_error_that_names_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _runtime_dir.ensure_broker()
    pid = fetch_status(path).pid
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr("loopfuse._broker_start._ANSWER_SECONDS", 0.3)
    try:
        with pytest.raises(BrokerError, match="does not answer"):
            _runtime_dir.ensure_broker()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_something_else_at_the_socket_is_an_error(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as imposter:
        imposter.bind(str(path))
        imposter.listen()
        command = [sys.executable, "-c", _ENSURE]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as starter:
            accepted, _ = imposter.accept()
            with accepted:
                accepted.recv(100)
                accepted.send(b"220 smtp.example.org")
                said = starter.communicate(timeout=START)[1]
    assert "not a broker of this version" in said


def test_a_directory_that_can_not_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPFUSE_BROKER", str(tmp_path / "nowhere" / "broker.sock"))
    with pytest.raises(RuntimeDirError, match="no directory"):
        _runtime_dir.ensure_broker()


@pytest.mark.parametrize("value", ["relative/path.sock", "/" + "x" * 120])
def test_a_path_no_socket_can_have_is_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPFUSE_BROKER", value)
    with pytest.raises(RuntimeDirError):
        _runtime_dir.broker_path()


# -- the runtime directory ------------------------------------------------------------------


@pytest.fixture
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this directory the one where brokers of ours belong."""
    monkeypatch.delenv("LOOPFUSE_BROKER", raising=False)
    folder = tmp_path / "loopfuse"
    monkeypatch.setattr(_runtime_dir, "_directory", lambda: folder)
    return folder


def test_the_directory_is_made_for_its_owner(own_directory: Path) -> None:
    _runtime_dir.prepare_directory(own_directory / "broker.sock")
    expected = 0o755 if os.geteuid() == 0 else 0o700
    assert own_directory.stat().st_mode & 0o777 == expected
    _runtime_dir.prepare_directory(own_directory / "broker.sock")


def test_a_link_in_its_place_is_refused(own_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    own_directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RuntimeDirError, match="not a directory"):
        _runtime_dir.prepare_directory(own_directory / "broker.sock")


def test_a_file_in_its_place_is_refused(own_directory: Path) -> None:
    own_directory.touch()
    with pytest.raises(RuntimeDirError, match="not a directory"):
        _runtime_dir.prepare_directory(own_directory / "broker.sock")


def test_a_directory_that_others_can_write_is_refused(own_directory: Path) -> None:
    own_directory.mkdir()
    own_directory.chmod(0o777)
    with pytest.raises(RuntimeDirError, match="entered by others"):
        _runtime_dir.prepare_directory(own_directory / "broker.sock")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_users_directory_is_refused(own_directory: Path) -> None:
    own_directory.mkdir()
    os.chown(own_directory, 65534, 65534)
    with pytest.raises(RuntimeDirError, match="another user"):
        _runtime_dir.prepare_directory(own_directory / "broker.sock")


@pytest.mark.parametrize(
    ("uid", "runtime", "expected"),
    [
        (0, "/run/user/0", "/run/loopfuse/broker.sock"),
        (1234, None, "/tmp/loopfuse-1234/broker.sock"),
        (1234, "relative", "/tmp/loopfuse-1234/broker.sock"),
        (1234, "/", "/tmp/loopfuse-1234/broker.sock"),  # root's, left over from `su`
    ],
)
def test_each_user_has_a_place(
    monkeypatch: pytest.MonkeyPatch, uid: int, runtime: str | None, expected: str
) -> None:
    monkeypatch.delenv("LOOPFUSE_BROKER", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    if runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert _runtime_dir.broker_path() == Path(expected)


def test_a_users_runtime_directory_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LOOPFUSE_BROKER", raising=False)
    owner = 1234
    os.chown(tmp_path, owner, -1) if os.geteuid() == 0 else None
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert _runtime_dir.broker_path() == tmp_path / "loopfuse" / "broker.sock"


# -- leaving --------------------------------------------------------------------------------


STAYS = 2.0
"""Seconds: a busy machine takes its time to start a client."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_on_a_signal_and_takes_its_socket_along(
    broker: BrokerProcess, number: signal.Signals
) -> None:
    broker.process.send_signal(number)
    assert broker.process.wait(PATIENCE) == 0
    assert not broker.path.exists()


def test_it_leaves_when_idle(tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "broker.sock", "--idle-exit", "0.3")
    assert process.process.wait(PATIENCE) == 0
    assert not process.path.exists()
    assert no_broker_at(process.path)
    process.stop()


def test_it_stays_for_a_client(tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "broker.sock", "--idle-exit", str(STAYS))
    client = FakeLibrary(process.path)
    time.sleep(STAYS + 0.5)
    assert process.process.poll() is None
    client.close()
    assert process.process.wait(PATIENCE) == 0
    process.stop()


def test_it_stays_for_a_program_that_has_not_connected_yet(path: Path) -> None:
    process = BrokerProcess(path, "--idle-exit", str(STAYS))
    sleeper = subprocess.Popen([*LOOPFUSE, "run", "--", "sleep", "60"])
    time.sleep(STAYS + 1.5)
    assert process.process.poll() is None
    sleeper.kill()
    sleeper.wait()
    assert process.process.wait(PATIENCE) == 0
    process.stop()


def test_who_has_asked_and_gone_does_not_keep_it(path: Path) -> None:
    process = BrokerProcess(path, "--idle-exit", str(STAYS))
    subprocess.run([*LOOPFUSE, "run", "--", "true"], check=True, timeout=PATIENCE)
    assert process.process.wait(PATIENCE) == 0
    process.stop()


def test_it_stays_for_a_pair(tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "broker.sock", "--idle-exit", str(STAYS))
    with tcp_pair() as pair:
        with libraries(process.path, 2) as (one, other):
            one.claim(pair.client, wire.Side.CLIENT)
            other.claim(pair.server, wire.Side.SERVER)
            assert isinstance(one.receive().body, wire.Fuse)
        time.sleep(STAYS + 0.5)
        assert process.process.poll() is None
    assert process.process.wait(PATIENCE) == 0
    process.stop()


def test_it_never_leaves_when_told_so(tmp_path: Path) -> None:
    process = BrokerProcess(tmp_path / "broker.sock", "--idle-exit", "0")
    time.sleep(0.5)
    assert process.process.poll() is None
    assert process.stop()[0] == 0


def test_a_successors_socket_file_is_left_alone(broker: BrokerProcess) -> None:
    """Somebody removed the socket, and something else has taken its name."""
    broker.path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(str(broker.path))
        assert broker.stop()[0] == 0
        assert broker.path.exists()


def test_a_second_broker_at_the_same_path_is_refused(broker: BrokerProcess) -> None:
    command = [*LOOPFUSE, "broker", "--socket", str(broker.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START, check=False)
    assert done.returncode == 2
    assert "running" in done.stderr and "Traceback" not in done.stderr
    assert answers(broker.path)


def test_errors_say_what_to_do(path: Path) -> None:
    path.mkdir()
    with pytest.raises(LoopfuseError) as caught:
        _runtime_dir.ensure_broker()
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_it_comes_before_busy_programs_where_it_may(path: Path) -> None:
    may = "import os; os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))"
    allowed = subprocess.run([sys.executable, "-c", may], capture_output=True, check=False)
    _runtime_dir.ensure_broker()
    (broker,) = brokers_of(path)
    wanted = os.SCHED_OTHER if allowed.returncode else os.SCHED_RR
    eventually(lambda: os.sched_getscheduler(broker) == wanted, "it has its priority")


def test_it_serves_at_ordinary_priority_where_it_must(path: Path) -> None:
    shell = f"ulimit -r 0; exec {sys.executable} -c '{_ENSURE}'"
    drop = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"]
    if os.getuid() != 0:
        drop = []
    subprocess.run([*drop, "sh", "-c", shell], check=True, timeout=START)
    (broker,) = brokers_of(path)
    assert os.sched_getscheduler(broker) == os.SCHED_OTHER
    assert answers(path)
