"""The measuring program by itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import loopfuse._bench
from broker_fixtures import eventually
from holdings import has_state

MEASURE = str(Path(loopfuse._bench.__file__).with_name("measure"))


def client(*words: str) -> subprocess.CompletedProcess[str]:
    """With a standard input that ends at once: no warm-up, and it leaves by itself."""
    return subprocess.run(
        [MEASURE, "client", *words],
        input="",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("over=pigeon", "pigeon"),
        ("size=0", "0"),
        ("size=99999999", "99999999"),
        ("size=1x", "1x"),
        ("work=sleep", "sleep"),
        ("nonsense", "nonsense"),
        ("colour=red", "colour"),
    ],
)
def test_a_wrong_word_is_named(word: str, named: str) -> None:
    done = client("work=roundtrip", word)
    assert done.returncode == 2
    assert f"'{named}'" in done.stderr


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_both_ends_in_one_process_never_sleep(over: str, tmp_path: Path) -> None:
    at = "0" if over == "tcp" else str(tmp_path / "socket")
    done = client(f"over={over}", f"at={at}", "work=self", "size=3", "seconds=0.02")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["units"] > 0
    assert found["bytes"] == found["units"] * 6
    assert found["seconds"] >= 0.02
    latency = found["latency_ns"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"]


def test_percentiles_are_near_what_was_measured() -> None:
    """A server that answers late: no latency is below that, the median not far above."""
    late = 0.02

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                threading.Event().wait(late)
                connection.sendall(data)

    found = asked_of(serve, "seconds=0.1")
    assert found.returncode == 0, found.stderr
    latency = json.loads(found.stdout.splitlines()[-1])["latency_ns"]
    assert late * 0.96e9 < latency["p50"] <= latency["max"]


def test_a_wrong_echo_is_noticed() -> None:
    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(100):
                connection.sendall(bytes(byte ^ 1 for byte in data))

    done = asked_of(serve, "size=64", "seconds=0.05")
    assert done.returncode == 1
    assert "did not come back as it was sent" in done.stderr


def test_a_server_that_leaves_is_noticed() -> None:
    done = asked_of(lambda connection: connection.close(), "seconds=0.05")
    assert done.returncode == 1
    assert "measure: " in done.stderr


@pytest.mark.parametrize("work", ["roundtrip", "batches"])
def test_a_line_has_the_same_connection_measured_again(work: str) -> None:
    words = ["over=tcp", f"work={work}", "size=64"]
    piped = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([MEASURE, "server", "at=0", *words], **piped) as server:  # type: ignore[call-overload]
        port = server.stdout.readline().split()[1]
        command = [MEASURE, "client", f"at={port}", "seconds=0.01", f"peer={server.pid}", *words]
        with subprocess.Popen(command, **piped) as client:
            assert client.stdout.readline() == "warming\n"
            found = []
            for _ in range(3):
                client.stdin.write("\n")
                client.stdin.flush()
                found.append(json.loads(client.stdout.readline()))
            assert client.communicate(timeout=20)[0] == ""
            assert client.returncode == 0
        assert server.wait(20) == 0
    assert all(one["bytes"] > 0 and 0.01 <= one["seconds"] < 20 for one in found)
    starts = [one["start"] for one in found]
    assert starts == sorted(set(starts))
    if work == "roundtrip":
        assert all(one["bytes"] == one["units"] * 128 for one in found)


def test_an_idle_client_sleeps_until_it_is_woken_and_then_asks_again() -> None:
    with subprocess.Popen(
        [MEASURE, "server", "over=tcp", "at=0", "work=idle"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split()[1]
        command = [MEASURE, "client", "over=tcp", f"at={port}", "work=idle"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as sleeper:
            assert sleeper.stdin is not None and sleeper.stdout is not None
            sleeper.stdin.close()  # no warm-up
            assert [sleeper.stdout.readline() for _ in range(2)] == ["warming\n", "asleep\n"]
            eventually(lambda: has_state(sleeper.pid, "S"), "it sleeps")
            assert sleeper.poll() is None
            sleeper.send_signal(signal.SIGALRM)
            assert sleeper.stdout.readline() == "awake\n"
            assert sleeper.wait(10) == 0


@pytest.mark.parametrize("on", ["file", "pipe", "tcp", "epoll", "poll"])
def test_single_calls_are_timed_and_counted_or_it_is_said_why_not(on: str) -> None:
    words = (f"work=calls-{on}", "over=tcp", "size=64")
    with subprocess.Popen(
        [MEASURE, "server", "at=0", *words], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().split()[1]
        done = client(*words, f"at={port}", "seconds=0.01")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["calls"] >= 64
    assert found["typical_ns"] > 0
    assert ("refusal" in found) == ("user_instructions" not in found)


def asked_of(serve: object, *words: str) -> subprocess.CompletedProcess[str]:
    """A client against a server in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: serve(listener.accept()[0]))  # type: ignore[operator]
        thread.start()
        port = listener.getsockname()[1]
        done = client("over=tcp", f"at={port}", "work=roundtrip", f"peer={os.getpid()}", *words)
        thread.join(10)
    return done
