"""The command lines of servers and clients that are measured, and what the clients print."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from loopfuse._bench.program import Answer, Spot, number_in, path_of
from loopfuse._bench.results import Latency
from loopfuse._errors import BenchError

_SCRIPTS = Path(__file__).parent


def redis_server(spot: Spot) -> list[str]:
    command = [path_of("redis-server"), "--port", str(spot.port), "--bind", "127.0.0.1"]
    command += ["--save", "", "--dir", str(spot.folder), "--loglevel", "warning"]
    return [*command, "--unixsocket", spot.socket]


def redis_client(options: str) -> Callable[[Spot, float, int], list[str]]:
    def command(spot: Spot, _seconds: float, count: int) -> list[str]:
        unix = ["-s", spot.socket] if spot.unix else ["-p", str(spot.port)]
        words = [path_of("redis-benchmark"), *unix, "--csv", "-t", "get", "-n", str(count)]
        return [*words, *options.split()]

    return command


def redis_answer(said: str, count: int) -> Answer:
    rows = list(csv.DictReader(said.splitlines()))
    if not rows or "rps" not in rows[-1]:
        raise BenchError(f"redis-benchmark printed no figures: {said[:200]!r}")
    row = rows[-1]

    def microseconds(name: str) -> float | None:
        return float(row[name]) * 1e3 if row.get(name) else None

    latency = Latency(
        p50=microseconds("p50_latency_ms"),
        p99=microseconds("p99_latency_ms"),
        max=microseconds("max_latency_ms"),
    )
    return Answer(float(row["rps"]), count, latency)


_NGINX = """
daemon off; worker_processes 1; {user} pid {dir}/nginx.pid; error_log {dir}/error.log;
events {{ worker_connections 1000; }}
http {{ access_log off; keepalive_requests 1000000000;
  client_body_temp_path {dir}; proxy_temp_path {dir}; fastcgi_temp_path {dir};
  uwsgi_temp_path {dir}; scgi_temp_path {dir};
  server {{ listen {where}; root {dir}; }} }}
"""


def nginx_server(spot: Spot) -> list[str]:
    (spot.folder / "page").write_bytes(b"p" * 2000)
    user = "user root;" if os.geteuid() == 0 else ""
    config = spot.folder / "nginx.conf"
    where = f"unix:{spot.socket}" if spot.unix else f"127.0.0.1:{spot.port}"
    config.write_text(_NGINX.format(dir=spot.folder, where=where, user=user))
    return [path_of("nginx"), "-e", str(spot.folder / "error.log"), "-c", str(config)]


def wrk_client(spot: Spot, seconds: float, _count: int) -> list[str]:
    url = f"http://127.0.0.1:{spot.port}/page"
    return [path_of("wrk"), "-t1", "-c8", f"-d{max(1, round(seconds))}s", "--latency", url]


def wrk_answer(said: str, _asked: int) -> Answer:
    count, rate = number_in(r"(\d+) requests in", said), number_in(r"Requests/sec: +([\d.]+)", said)
    if "Socket errors" in said or "Non-2xx" in said:
        raise BenchError("wrk met errors: " + said.strip().splitlines()[-1])
    scale = {"us": 1.0, "ms": 1e3, "s": 1e6}
    found = {n: float(v) * scale[u] for n, v, u in re.findall(r"(\d+)% +([\d.]+)(\w+)", said)}
    return Answer(rate, count, Latency(p50=found.get("50"), p90=found.get("90"), p99=found["99"]))


def memcached_server(spot: Spot) -> list[str]:
    user = ["-u", "root"] if os.geteuid() == 0 else []
    inet = ["-l", "127.0.0.1", "-p", str(spot.port), "-U", "0"]
    return [path_of("memcached"), *(["-s", spot.socket] if spot.unix else inet), *user]


def request_client(service: str) -> Callable[[Spot, float, int], list[str]]:
    script = str(_SCRIPTS / "request_client.py")
    return lambda spot, seconds, _count: [
        *(sys.executable, script),
        *(service, spot.where, str(seconds)),
    ]


def count_answer(said: str, _asked: int) -> Answer:
    found = json.loads(said)
    return Answer(found["count"] / found["seconds"], found["count"])


def iperf_client(spot: Spot, seconds: float, _count: int) -> list[str]:
    time = str(max(1, round(seconds)))
    return [path_of("iperf3"), "-c", "127.0.0.1", "-p", str(spot.port), "-t", time, "-J"]


def iperf_answer(said: str, _asked: int) -> Answer:
    received = json.loads(said)["end"]["sum_received"]
    return Answer(received["bits_per_second"] / 8e9, received["bytes"] / 1e6)


_SOCKPERF_MOST = 1_000_000
"""Messages a second. As many as it can, its default, has room for fewer than fused ones are, and
sockperf ends with "_seqN > m_maxSequenceNo"."""


def sockperf_client(spot: Spot, seconds: float, _count: int) -> list[str]:
    where = ["--tcp", "-i", "127.0.0.1", "-p", str(spot.port)]
    time = ["-t", str(max(1, round(seconds)))]
    return [path_of("sockperf"), "ping-pong", *where, *time, f"--mps={_SOCKPERF_MOST}"]


def sockperf_answer(said: str, _asked: int) -> Answer:
    """It halves round trips, as if both ways took the same; here they are whole again."""
    said = re.sub(r"\x1b\[[\d;]*m", "", said)
    found = {n: 2 * float(v) for n, v in re.findall(r"percentile ([\d.]+) *= *([\d.]+)", said)}
    latency = Latency(
        p50=found.get("50.000"),
        p90=found.get("90.000"),
        p99=found.get("99.000"),
        p999=found.get("99.900"),
    )
    count = number_in(r"ReceivedMessages=(\d+)", said)
    return Answer(2 * number_in(r"Latency is ([\d.]+) usec", said), count, latency)


def echo_server(shape: str) -> Callable[[Spot], list[str]]:
    script = str(_SCRIPTS / "echo_server.py")
    return lambda spot: [sys.executable, script, shape, spot.where]


def echo_client(spot: Spot, seconds: float, _count: int) -> list[str]:
    words = "work=many size=64 connections=10 active=10"
    where = (f"over={'unix' if spot.unix else 'tcp'}", f"at={spot.where}")
    return [spot.measure, "client", *where, *words.split(), f"seconds={seconds}"]


def echo_answer(said: str, _asked: int) -> Answer:
    found = json.loads(said.splitlines()[-1])
    latency = {name: value / 1e3 for name, value in found["latency_ns"].items()}
    return Answer(found["units"] / found["seconds"], found["units"], Latency(**latency))
