"""nginx, python -m http.server and Node serving files and bodies."""

from __future__ import annotations

import hashlib
import random
import re
import sys
from pathlib import Path

import pytest

from conftest import PROGRAMS, tool
from daemons import nginx_command
from sessions import Session, free_port

BIG = 5_000_000


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "big").write_bytes(random.Random(1).randbytes(BIG))
    (tmp_path / "small").write_bytes(b"s" * 2000)
    return tmp_path


def fetched(session: Session, port: int, times: int) -> str:
    urls = [f"http://127.0.0.1:{port}/big"] * times
    shell = f"{tool('curl')} -s {' '.join(urls)} | sha256sum"
    return session.run(["sh", "-c", shell]).stdout.split()[0]


def expected(files: Path, times: int) -> str:
    return hashlib.sha256((files / "big").read_bytes() * times).hexdigest()


def test_nginx_serves_files_intact(fused: Session, files: Path) -> None:
    port = free_port()
    with fused.server(nginx_command(files, port), port):
        assert fetched(fused, port, 6) == expected(files, 6)
        assert sum(r.bytes_to_client for r in fused.fused_rows(port)) > BIG


def test_nginx_answers_wrk_without_errors(lazily_fused: Session, files: Path) -> None:
    port = free_port()
    with lazily_fused.server(nginx_command(files, port), port):
        command = [tool("wrk"), "-t1", "-c8", "-d2", f"http://127.0.0.1:{port}/small"]
        said = lazily_fused.run(command).stdout
        assert "Socket errors" not in said and "Non-2xx" not in said
        found = re.search(r"(\d+) requests in", said)
        assert found and int(found[1]) > 100
        assert len(lazily_fused.fused_rows(port)) == 8


def test_curl_fetches_from_http_server_intact(fused: Session, files: Path) -> None:
    port = free_port()
    server = [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(files), str(port)]
    with fused.server(server, port, stderr=-3):
        assert fetched(fused, port, 2) == expected(files, 2)
        if fused.eager:
            assert fused.fused_rows(port)


def test_node_bodies_come_back_whole(lazily_fused: Session) -> None:
    port, script = free_port(), str(PROGRAMS / "bodies.js")
    with lazily_fused.server([tool("node"), script, "server", str(port)], port):
        assert lazily_fused.run([tool("node"), script, "client", str(port)]).stdout == "2000 ok\n"
        assert lazily_fused.fused_rows(port)


def test_asyncio_streams_echo_intact(fused: Session) -> None:
    port, script = free_port(), str(PROGRAMS / "asyncio_echo.py")
    with fused.server([sys.executable, script, "server", str(port)], port):
        done = fused.run([sys.executable, script, "client", str(port)])
        assert done.stdout == "20 ok\n"
        assert len(fused.fused_rows(port)) == 20
