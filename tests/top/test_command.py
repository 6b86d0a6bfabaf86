"""`loopfuse top` as a person runs it, in a pipe and in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_fixtures import START, BrokerProcess, eventually, libraries, tcp_pair
from commands import LOOPFUSE
from loopfuse import _wire as wire
from loopfuse._cli import cli
from loopfuse._segments import DIRECTION, header_of

pytest_plugins = ["broker_fixtures"]
TOP = [*LOOPFUSE, "top", "-d", "0.1"]


def environment(path: Path) -> dict[str, str]:
    return {**os.environ, "LOOPFUSE_BROKER": str(path), "TERM": "xterm"}


def top(path: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [*TOP, *arguments],
        env=environment(path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.fixture
def segment(broker: BrokerProcess) -> Iterator[int]:
    """The memory of a pair that claims to be fused."""
    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, wire.Side.CLIENT)
        other.claim(pair.server, wire.Side.SERVER)
        fd = one.receive().fds[0]
        os.pwrite(fd, struct.pack("=QI", 1 << 20, 1), header_of(fd) + DIRECTION)
        yield fd


@pytest.mark.parametrize(
    "arguments",
    [["-d", "0"], ["-d", "soon"], ["-n", "0"], ["--sort", "beauty"], ["-l", "-1"], ["extra"]],
    ids=str,
)
def test_bad_arguments_are_explained(arguments: list[str]) -> None:
    done = CliRunner().invoke(cli, ["top", *arguments])
    assert done.exit_code == 2
    assert "Error:" in done.output


def test_a_pipe_gets_a_block_for_each_interval(broker: BrokerProcess, segment: int) -> None:
    lines = top(broker.path, "-n", "2")
    heads = [i for i, line in enumerate(lines) if line.startswith("loopfuse top")]
    assert heads == [0, 5]
    assert "1 fused, 0 plain, 0 defused" in lines[0]
    assert lines[2].split()[0] == "ID"
    assert lines[3].split()[0] == "1" and "1.0M" in lines[3]
    assert lines[4] == ""
    assert not any("\x1b" in line or len(line) > 80 for line in lines)


def test_filter_and_length_leave_lines_out(broker: BrokerProcess, segment: int) -> None:
    assert len(top(broker.path, "-n", "1", "-f", "nobody")) == 3
    with libraries(broker.path, 1) as (one,), tcp_pair() as pair:
        one.claim(pair.client, wire.Side.CLIENT)
        one.settle()
        lines = top(broker.path, "-n", "1", "-l", "1")
        assert lines[-1] == "(1 more)"
        assert "no-counterpart" in "\n".join(top(broker.path, "-n", "1", "-l", "0"))


def test_pairs_are_counted(broker: BrokerProcess, segment: int) -> None:
    lines = top(broker.path, "-n", "1", "--pairs")
    assert lines[2].split()[0] == "COUNT"
    assert lines[3].split()[0] == "1"


def test_without_a_broker_it_waits(tmp_path: Path) -> None:
    lines = top(tmp_path / "none.sock", "-n", "1")
    assert "no broker is running" in lines[1]


def test_it_goes_on_when_the_broker_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "broker.sock"
    first = BrokerProcess(path)
    process = subprocess.Popen(
        TOP,
        env=environment(path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        # Who runs the tests in the background of a shell ignores it, and so would the child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        said = b""

        def has(word: bytes) -> bool:
            nonlocal said
            said += process.stdout.read() or b"" if process.stdout else b""
            return word in said

        eventually(lambda: has(b"0 fused"), "it shows something")
        first.stop()
        eventually(lambda: has(b"no broker"), "it says that there is none")
        second = BrokerProcess(path)
        said = b""
        eventually(lambda: has(b"0B/s"), "it shows the new one")
        second.stop()
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == b""


def test_a_reader_that_has_enough_is_no_error(broker: BrokerProcess, segment: int) -> None:
    command = f"{' '.join(TOP)} -n 50 | head -1"
    done = subprocess.run(
        command,
        shell=True,
        env=environment(broker.path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("loopfuse top")
    assert done.stderr == ""


def in_terminal(path: Path, keys: bytes, *arguments: str, **extra: str) -> tuple[int, bytes]:
    """Runs it in a terminal of 80 columns; keys are typed once there is something to see."""
    pid, master = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [*TOP, *arguments], environment(path) | extra)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    said, typed = b"", False
    deadline = time.monotonic() + START
    try:
        while time.monotonic() < deadline:
            if not select.select([master], [], [], 0.5)[0]:
                continue
            try:
                said += os.read(master, 65536)
            except OSError:
                break
            if not typed and b"fused" in said:
                typed = True
                os.write(master, keys)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said
    finally:
        os.close(master)


def test_a_terminal_gets_a_full_screen_until_q(broker: BrokerProcess, segment: int) -> None:
    pytest.importorskip("textual")
    code, said = in_terminal(broker.path, b"q")
    assert code == 0
    assert b"\x1b[?1049h" in said and b"\x1b[?1049l" in said


def test_a_terminal_without_textual_gets_lines_and_a_hint(
    broker: BrokerProcess, segment: int, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['textual'] = None\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    code, said = in_terminal(broker.path, b"", "-n", "1", PYTHONPATH=path)
    assert code == 0
    assert b"pip install" in said
    assert b"\x1b" not in said


def test_plain_is_plain_in_a_terminal_too(broker: BrokerProcess, segment: int) -> None:
    code, said = in_terminal(broker.path, b"", "-n", "1", "--plain")
    assert code == 0
    assert b"\x1b" not in said
