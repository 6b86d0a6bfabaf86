"""Redis, HTTP and PostgreSQL over fused connections, as tshark's dissectors see them."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import tool
from daemons import postgresql_binaries, postgresql_cluster, postgresql_command, redis_command
from sessions import Session, free_port
from tap.captures import assert_clean, capturing, fields, streams, tshark

BIG = 3_000_000


def test_redis(eagerly_fused: Session, broker_path: Path, tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "c.pcapng"
    server = redis_command(tmp_path, port)
    client = [tool("redis-cli"), "-p", str(port)]
    with eagerly_fused.server(server, port), capturing(broker_path, file) as capture:
        eagerly_fused.run([*client, "set", "colour", "x" * 50_000])
        assert eagerly_fused.run([*client, "strlen", "colour"]).stdout == "50000\n"
        bench = [tool("redis-benchmark"), "-p", str(port), "-q", "-t", "get,lpush"]
        eagerly_fused.run([*bench, "-c", "4", "-n", "2000", "-P", "8"])
    assert capture.number("lost") == 0
    decode = ["-d", f"tcp.port=={port},resp"]
    assert_clean(file, *decode)
    assert len(tshark(file, *decode, "-Y", "resp")) > 500
    assert tshark(file, *decode, "-Y", 'resp contains "strlen"')


# Its sockets block: a first request on one that does not waits 20 ms at the most for the ring, and
# goes by TCP on a busy machine.
HTTP_CLIENT = """
import pathlib, sys, urllib.error, urllib.request
url, got = sys.argv[1:]
pathlib.Path(got).write_bytes(urllib.request.urlopen(url + "/big").read())
try:
    urllib.request.urlopen(url + "/none")
except urllib.error.HTTPError as error:
    error.read()  # closed with bytes unread, TCP resets
"""


def test_http(eagerly_fused: Session, broker_path: Path, tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "c.pcapng"
    served = tmp_path / "served"
    served.mkdir()
    body = random.Random(1).randbytes(BIG)
    (served / "big").write_bytes(body)
    server = [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(served), str(port)]
    got = tmp_path / "got"
    with eagerly_fused.server(server, port, stderr=-3), capturing(broker_path, file) as capture:
        url = f"http://127.0.0.1:{port}"
        eagerly_fused.run([sys.executable, "-c", HTTP_CLIENT, url, str(got)])
    assert got.read_bytes() == body
    assert capture.number("lost") == 0
    decode = ["-d", f"tcp.port=={port},http"]
    assert_clean(file, *decode)
    answers = fields(file, ["http.response.code"], *decode, "-Y", "http.response")
    assert sorted(row[0] for row in answers) == ["200", "404"]
    out = tmp_path / "objects"
    tshark(file, *decode, "-q", "--export-objects", f"http,{out}")
    exported = (out / "big").read_bytes()
    assert hashlib.sha256(exported).digest() == hashlib.sha256(body).digest()


@pytest.fixture
def cluster() -> Iterator[Path]:
    with postgresql_cluster() as data:
        yield data


def test_postgresql(
    eagerly_fused: Session, broker_path: Path, cluster: Path, tmp_path: Path
) -> None:
    port, file = free_port(), tmp_path / "c.pcapng"
    server = postgresql_command(cluster, port)
    where = f"host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable"
    psql = [str(postgresql_binaries() / "psql"), "-Atc"]
    query = "select repeat('x', 100000), generate_series from generate_series(1, 20)"
    with eagerly_fused.server(server, port, stderr=-3, cwd="/tmp"):
        with capturing(broker_path, file) as capture:
            said = eagerly_fused.run([*psql, query, where]).stdout
            assert len(said) > 2_000_000
            assert eagerly_fused.run([*psql, "select 6 * 7", where]).stdout == "42\n"
    assert capture.number("lost") == 0
    decode = ["-d", f"tcp.port=={port},pgsql"]
    assert_clean(file, *decode)
    assert streams(file) == 2
    assert tshark(file, *decode, "-Y", 'pgsql.query contains "6 * 7"')
    rows = fields(file, ["pgsql.type"], *decode, "-Y", 'pgsql.type == "Data row"')
    assert sum(row[0].count("Data row") for row in rows) == 21
