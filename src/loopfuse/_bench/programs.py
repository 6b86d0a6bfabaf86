"""The real programs: rows of the report."""

from __future__ import annotations

import signal
import sys

from loopfuse._bench import postgresql, tools
from loopfuse._bench.program import Answer, Program, number_in, path_of
from loopfuse._bench.sides import LOOPFUSE, TCP, UNIX


def _redis(id: str, title: str, options: str) -> Program:
    return Program(
        id=id,
        title=title,
        unit="requests/s",
        work="request",
        needs=("redis-server", "redis-benchmark"),
        server=tools.redis_server,
        client=tools.redis_client(options),
        answer=tools.redis_answer,
        sides=(TCP, UNIX, LOOPFUSE),
    )


def _echo(id: str, title: str, shape: str) -> Program:
    return Program(
        id=id,
        title=title,
        unit="messages/s",
        work="message",
        needs=(sys.executable,),
        server=tools.echo_server(shape),
        client=tools.echo_client,
        answer=tools.echo_answer,
        sides=(TCP, UNIX, LOOPFUSE),
    )


PROGRAMS = (
    _redis("redis-1", "redis GET, 1 client", "-c 1"),
    _redis("redis-50", "redis GET, 50 clients", "-c 50"),
    _redis("redis-50-16", "redis GET, 50 clients, pipelined by 16", "-c 50 -P 16"),
    Program(
        "memcached",
        "memcached get, 1 client in Python",
        "requests/s",
        "request",
        ("memcached",),
        tools.memcached_server,
        tools.request_client("memcached"),
        tools.count_answer,
        sides=(TCP, UNIX, LOOPFUSE),
    ),
    Program(
        "nginx",
        "nginx, page of 2 kB, wrk with 8 connections",
        "requests/s",
        "request",
        ("nginx", "wrk"),
        tools.nginx_server,
        tools.wrk_client,
        tools.wrk_answer,
    ),
    Program(
        "nginx-1",  # wrk knows no unix sockets
        "nginx, page of 2 kB, 1 client in Python",
        "requests/s",
        "request",
        ("nginx",),
        tools.nginx_server,
        tools.request_client("http"),
        tools.count_answer,
        sides=(TCP, UNIX, LOOPFUSE),
    ),
    Program(
        "pgbench",
        "PostgreSQL, pgbench -S, 1 client",
        "transactions/s",
        "transaction",
        ("postgres", "initdb", "pgbench"),
        lambda spot: postgresql.server(spot.folder, spot.port),
        lambda spot, seconds, _count: postgresql.client(
            spot.folder, spot.port, seconds, unix=spot.unix
        ),
        lambda said, _asked: Answer(
            number_in(r"tps = ([\d.]+)", said),
            number_in(r"actually processed: (\d+)", said),
        ),
        sides=(TCP, UNIX, LOOPFUSE),
        prepare=lambda spot: postgresql.prepare(spot.folder),
        fill=lambda spot: postgresql.fill(spot.port),
        stop_with=signal.SIGINT,
    ),
    Program(
        "sockperf",
        "sockperf ping-pong, 14 B, round trip",
        "us",
        "round trip",
        ("sockperf",),
        lambda spot: [
            *(path_of("sockperf"), "server", "--tcp"),
            *("-i", "127.0.0.1", "-p", str(spot.port)),
        ],
        tools.sockperf_client,
        tools.sockperf_answer,
        better="less",
    ),
    Program(
        "iperf3",
        "iperf3, 1 stream",
        "GB/s",
        "MB",
        ("iperf3",),
        lambda spot: [path_of("iperf3"), "-s", "-B", "127.0.0.1", "-p", str(spot.port)],
        tools.iperf_client,
        tools.iperf_answer,
        least_bytes=1_000_000,
    ),
    _echo("asyncio", "Python asyncio echo, 10 connections", "asyncio"),
    _echo("threads", "Python echo in threads, 10 connections", "threads"),
)
