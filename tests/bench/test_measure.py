"""The measuring program by itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import loopfuse._bench

MEASURE = str(Path(loopfuse._bench.__file__).with_name("measure"))


def client(*words: str) -> subprocess.CompletedProcess[str]:
    """With a standard input that ends at once: no warm-up, and it leaves by itself."""
    return subprocess.run(
        [MEASURE, "client", *words],
        input="",
        capture_output=True,
        text=True,
        timeout=20,
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


def asked_of(serve: object, *words: str) -> subprocess.CompletedProcess[str]:
    """A client against a server in a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: serve(listener.accept()[0]))  # type: ignore[operator]
        thread.start()
        port = listener.getsockname()[1]
        done = client("over=tcp", f"at={port}", "work=roundtrip", f"peer={os.getpid()}", *words)
        thread.join(10)
    return done
