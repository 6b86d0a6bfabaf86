"""A policy file decides which connections are fused."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess, eventually
from commands import LOOPFUSE
from firewall.talkers import talk
from sessions import Session, free_port


@contextmanager
def under(library: Path, folder: Path, text: str) -> Iterator[Session]:
    """A session with a broker of its own that goes by this policy."""
    policy = folder / "policy.toml"
    policy.write_text(text)
    broker = BrokerProcess(folder / "broker.sock", "--policy", str(policy), "--log-level", "info")
    try:
        yield Session.under(library, broker, eager=False)
    finally:
        code, said = broker.stop()
    assert code == 0 and "Traceback" not in said, said


def test_a_denied_port_stays_plain(library: Path, tmp_path: Path) -> None:
    denied, other = free_port(), free_port()
    with under(library, tmp_path, f'[[rule]]\naction = "deny"\nport = {denied}\n') as session:
        with talk(session, denied) as quiet, talk(session, other) as free:
            row = quiet.becomes("plain", "policy")
            assert row.detail == f"rule 1 of {tmp_path}/policy.toml"
            free.becomes("fused")


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ('program = "python*"', "fused"),
        ('program = "no-such"', "plain"),
        (f"user = {os.getuid()}", "fused"),
        ("user = 4242", "plain"),
        ('address = "127.0.0.0/8"', "fused"),
        ('address = "10.0.0.0/8"', "plain"),
    ],
)
def test_only_what_is_allowed_is_fused(
    library: Path, tmp_path: Path, rule: str, state: str
) -> None:
    text = f'default = "deny"\n[[rule]]\naction = "allow"\n{rule}\n'
    with under(library, tmp_path, text) as session, talk(session, free_port()) as talking:
        talking.becomes(state, None if state == "fused" else "policy")


def test_sighup_has_the_policy_read_again(library: Path, tmp_path: Path) -> None:
    port = free_port()
    with under(library, tmp_path, "") as session, talk(session, port) as talking:
        talking.becomes("fused")
        broker = session.broker
        assert broker is not None
        policy = tmp_path / "policy.toml"
        policy.write_text("default = nonsense")
        broker.process.send_signal(signal.SIGHUP)
        policy_is_kept = talking.becomes("fused")
        assert policy_is_kept.reason is None
        policy.write_text(f'[[rule]]\naction = "deny"\nport = {port}\n')
        broker.process.send_signal(signal.SIGHUP)
        talking.becomes("defused", "policy")


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | {"LOOPFUSE_BROKER": str(folder / "broker.sock")}
    return subprocess.run(
        [*LOOPFUSE, "run", *words],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_run_starts_a_broker_with_the_policy_and_insists_on_it(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text('default = "deny"\n')
    other.write_text("")
    try:
        assert run(tmp_path, "--policy", str(one), "true").returncode == 0
        assert run(tmp_path, "--policy", str(one), "--", "sh", "-c", "exit 7").returncode == 7
        refused = run(tmp_path, "--policy", str(other), "true")
        assert refused.returncode == 2
        assert f"is running with {one}, not {other}" in refused.stderr
    finally:
        _end_broker(tmp_path / "broker.sock")


def _end_broker(path: Path) -> None:
    from loopfuse._control import fetch_status

    pid = fetch_status(path).pid
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not path.exists(), "the broker has left")


@pytest.mark.parametrize("command", ["run", "broker"])
def test_a_bad_policy_file_is_an_error_of_the_command_line(tmp_path: Path, command: str) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("defualt = 'deny'\n")
    words = ["true"] if command == "run" else []
    done = subprocess.run(
        [*LOOPFUSE, command, "--policy", str(policy), *words],
        env=dict(os.environ) | {"LOOPFUSE_BROKER": str(tmp_path / "broker.sock")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"{policy}, line 1: defualt is no key" in " ".join(done.stderr.split())
