"""The client in Python for memcached and nginx, by itself."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from loopfuse._bench import request_client

SCRIPT = str(Path(request_client.__file__))


def asked(service: str, answers: Iterator[bytes]) -> subprocess.CompletedProcess[str]:
    """A client whose requests get these answers, one each."""

    def serve(listener: socket.socket) -> None:
        connection = listener.accept()[0]
        with connection:
            while connection.recv(65536):
                connection.sendall(next(answers))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        command = [sys.executable, SCRIPT, service, str(listener.getsockname()[1]), "0.05"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        thread.join(10)
    return done


def page(date: str, body: str) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def test_a_page_may_have_another_date() -> None:
    def answers() -> Iterator[bytes]:
        while True:
            yield page("Mon, 01 Jan 2026 00:00:00 GMT", "text")
            yield page("Mon, 01 Jan 2026 00:00:01 GMT", "text")

    done = asked("http", answers())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["count"] > 0


@pytest.mark.parametrize("service", ["memcached", "http"])
def test_another_answer_than_before_is_noticed(service: str) -> None:
    def answers() -> Iterator[bytes]:
        if service == "memcached":
            yield b"STORED\r\n"
        else:
            yield page("now", "text")
        while True:
            yield b"w" * 10000

    done = asked(service, answers())
    assert done.returncode == 1
    assert "something else than before" in done.stderr
