"""`loopfuse run --metrics`: whoever only ever uses `run` can have metrics, too."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import loopfuse
from broker_fixtures import eventually
from commands import loopfuse as command
from loopfuse._broker_start import answers
from loopfuse._broker_state.scrapes import Address
from loopfuse._control import fetch_status
from loopfuse._errors import MetricsError
from sessions import free_port

pytest.importorskip("prometheus_client")


@pytest.fixture
def path(tmp_path: Path, library: Path) -> Iterator[Path]:
    """A socket path for a broker that starts by itself; ended afterwards."""
    where = tmp_path / "broker.sock"
    yield where
    if answers(where):
        os.kill(fetch_status(where).pid, signal.SIGTERM)
        eventually(lambda: not answers(where), "the broker ends")


def run(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command(path, "run", *arguments)


def in_a_line(said: str) -> str:
    return " ".join(said.split())


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_the_broker_that_it_starts_serves_them(path: Path) -> None:
    port = free_port()
    done = run(path, "--metrics", str(port), "--", "sh", "-c", "echo ran; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "ran\n", "")
    assert "loopfuse_fused_total 0" in scraped(port)


def test_the_same_address_again_is_the_same_broker(path: Path) -> None:
    port = free_port()
    first = run(path, "--metrics", str(port), "true")
    pid = fetch_status(path).pid
    again = [
        run(path, "--metrics", where, "true")
        for where in (str(port), f":{port}", f"127.0.0.1:{port}", f"localhost:{port}", "0")
    ]
    assert [done.returncode for done in (first, *again)] == [0] * 6, again
    assert run(path, "true").returncode == 0
    assert fetch_status(path).pid == pid


def test_another_address_is_refused_and_says_what_there_is(path: Path) -> None:
    port, other = free_port(), free_port()
    run(path, "--metrics", str(port), "true")
    done = run(path, "--metrics", str(other), "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (2, "")
    pid = fetch_status(path).pid
    words = f"(pid {pid}) is running with metrics at 127.0.0.1:{port}, not at 127.0.0.1:{other}"
    assert words in in_a_line(done.stderr)


def test_a_broker_without_metrics_is_not_enough(path: Path) -> None:
    run(path, "true")
    done = run(path, "--metrics", "9397", "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is running with no metrics, not at 127.0.0.1:9397" in in_a_line(done.stderr)


def test_a_taken_address_is_told_and_no_broker_is_left(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(path, "--metrics", str(port), "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (2, "")
    words = f"metrics can't be served at 127.0.0.1:{port}: Address already in use."
    assert words in in_a_line(done.stderr)
    assert not answers(path)
    assert run(path, "--metrics", str(port), "true").returncode == 0


def test_what_is_no_address_is_refused_before_anything_starts(path: Path) -> None:
    done = run(path, "--metrics", "here:there", "true")
    assert done.returncode == 2
    assert "'here:there' is no address for metrics" in in_a_line(done.stderr)
    assert not answers(path)


def test_a_policy_and_metrics_go_together(path: Path, tmp_path: Path) -> None:
    policy, port = tmp_path / "policy.toml", free_port()
    policy.write_text("default = 'deny'\n")
    options = ("--policy", str(policy), "--metrics", str(port))
    assert run(path, *options, "true").returncode == 0
    assert run(path, *options, "true").returncode == 0
    status = fetch_status(path)
    assert (status.policy, status.metrics) == (str(policy), f"127.0.0.1:{port}")


def test_a_started_broker_still_reads_its_policy_again_at_sighup(
    path: Path, tmp_path: Path
) -> None:
    """Its handlers are set before it forks, and are the broker's afterwards."""
    policy = tmp_path / "policy.toml"
    policy.write_text("default = 'deny'\n")
    run(path, "--policy", str(policy), "true")
    policy.write_text("default = 'allow'\n")
    before = fetch_status(path)
    os.kill(before.pid, signal.SIGHUP)
    eventually(lambda: fetch_status(path).policy_words != before.policy_words, "it has read it")


def test_the_status_says_where(path: Path) -> None:
    port = free_port()
    run(path, "--metrics", str(port), "true")
    said = command(path, "broker", "status").stdout
    assert f"metrics      http://127.0.0.1:{port}/metrics\n" in said
    os.kill(fetch_status(path).pid, signal.SIGTERM)
    eventually(lambda: not answers(path), "the broker ends")
    run(path, "true")
    assert "metrics      none\n" in command(path, "broker", "status").stdout


def test_python_can_ask_for_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPFUSE_BROKER", str(path))
    port = free_port()
    assert loopfuse.run(["true"], metrics=str(port)).returncode == 0
    assert "loopfuse_build_info" in scraped(port)
    with pytest.raises(loopfuse.MetricsError, match=r"not at 127\.0\.0\.1:1"):
        loopfuse.environment(metrics="127.0.0.1:1")


@pytest.mark.parametrize(
    ("wanted", "served", "same"),
    [
        (Address("127.0.0.1", 9397), "127.0.0.1:9397", True),
        (Address("127.0.0.1", 0), "127.0.0.1:9397", True),
        (Address("::1", 9397), "[::1]:9397", True),
        (Address("127.0.0.1", 9397), "0.0.0.0:9397", False),
        (Address("127.0.0.1", 9397), "127.0.0.1:9398", False),
        (Address("127.0.0.1", 9397), None, False),
    ],
    ids=str,
)
def test_addresses_are_compared_by_what_they_mean(
    wanted: Address, served: str | None, same: bool
) -> None:
    assert wanted.is_at(served) is same


def test_a_host_that_is_not_known_is_an_error() -> None:
    with pytest.raises(MetricsError, match=r"no-such-host\.invalid"):
        Address("no-such-host.invalid", 1).is_at("127.0.0.1:1")
