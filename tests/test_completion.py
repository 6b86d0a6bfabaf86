"""The tab key: what `loopfuse completion` prints works, and what is offered."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, tcp_pair
from commands import loopfuse
from kept import kept
from sessions import Session

pytest_plugins = ["broker_fixtures"]
SHELLS = ["bash", "zsh", "fish"]


def offered(line: str, broker: Path | str = "/none.sock") -> list[str]:
    """What is offered for the last word of a command line, as click tells bash."""
    words = shlex.split(line) + ([""] if line.endswith(" ") else [])
    done = loopfuse(
        None,
        _LOOPFUSE_COMPLETE="bash_complete",
        COMP_WORDS="\n".join(words),
        COMP_CWORD=str(len(words) - 1),
        LOOPFUSE_BROKER=str(broker),
    )
    return [answer.partition(",")[2] for answer in done.stdout.split()]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    done = loopfuse(None, "completion", shell)
    assert done.returncode == 0
    assert "_LOOPFUSE_COMPLETE" in done.stdout
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed: its script is printed, but not tried")
    script = tmp_path / "script"
    script.write_text(done.stdout)
    checked = subprocess.run([shell, "-n", str(script)], capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


def test_bash_completes_with_it(tmp_path: Path) -> None:
    """As readline does: it sets the words, calls the function and takes COMPREPLY."""
    command = tmp_path / "loopfuse"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m loopfuse "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(loopfuse completion bash)"\n'
        "COMP_WORDS=(loopfuse def); COMP_CWORD=1\n"
        "$(complete -p loopfuse | sed 's/.*-F \\([^ ]*\\).*/\\1/') loopfuse def loopfuse\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("defuse\n", "")


def test_commands_and_options_are_offered() -> None:
    assert offered("loopfuse d") == ["defuse", "doctor"]
    assert "--json" in offered("loopfuse why --")
    assert offered("loopfuse broker st") == ["status"]
    assert offered("loopfuse completion ") == SHELLS


def test_programs_are_offered_to_be_run() -> None:
    for line in ("loopfuse run env", "loopfuse run -- env", "loopfuse doctor env"):
        assert "env" in offered(line)
    assert offered("loopfuse run ./x") == ["./x"]
    assert offered("loopfuse run -- cat /et") == ["/et"]


def test_connections_and_programs_are_offered(library: Path, broker: BrokerProcess) -> None:
    session = Session.under(library, broker, eager=True)
    with kept(session, session) as both:
        assert offered("loopfuse defuse ", broker.path) == ["1"]
        comm = Path(f"/proc/{both.client}/comm").read_text().strip()
        assert comm in offered(f"loopfuse why {comm[:3]}", broker.path)


def test_programs_are_offered_without_asking_a_broker(tmp_path: Path) -> None:
    """It may hang, and the tab key with it."""
    path = tmp_path / "broker.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, tcp_pair():
        listener.bind(os.fspath(path))
        listener.listen()
        listener.setblocking(False)
        comm = Path("/proc/self/comm").read_text().strip()
        assert comm in offered(f"loopfuse why {comm[:3]}", path)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_without_a_broker_nothing_is_offered() -> None:
    with tcp_pair():
        assert offered("loopfuse defuse ") == []
        assert offered("loopfuse defuse ", "relative.sock") == []


@pytest.mark.parametrize("arguments", [[], ["tcsh"], ["bash", "zsh"]])
def test_an_unknown_shell_is_2(arguments: list[str]) -> None:
    assert loopfuse(None, "completion", *arguments).returncode == 2
