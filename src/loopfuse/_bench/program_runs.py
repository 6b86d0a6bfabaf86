"""Running a real program on all of its sides: each has a server of its own, up for all
rounds, and the clients take turns."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from loopfuse._bench import processes
from loopfuse._bench.children import Child, running
from loopfuse._bench.place import Place
from loopfuse._bench.program import Program, Spot
from loopfuse._bench.proof import Witness
from loopfuse._bench.results import Sample
from loopfuse._bench.sides import Side
from loopfuse._bench.statistics import per_unit
from loopfuse._errors import BenchError

_START_SECONDS = 20.0
_PREPARE_SECONDS = 60.0
_PATIENCE = 30.0
_FIRST_RATE = 4000.0
_FIRST_SECONDS = 0.5
_LEAST_COUNT = 1000
_SHARE_FUSED = 0.8
"""Of the payload that so many units come to at the least: a program's connections are new in
every round, and their first messages take TCP."""


@dataclass
class Server:
    """One side's server, up."""

    side: Side
    spot: Spot
    child: Child
    witness: Witness
    rate: float = field(default=_FIRST_RATE)
    """Units a second that were seen last, for clients that want a number."""


@contextmanager
def serving(place: Place, program: Program, sides: tuple[Side, ...]) -> Iterator[list[Server]]:
    """The servers, each asked once so that all is warm. Raises BenchError."""
    with ExitStack() as stack:
        servers = []
        for side in sides:
            folder = place.folder / f"{program.id}-{side.key}"
            folder.mkdir()
            spot = Spot(folder, _free_port(), place.measure, unix=side.over == "unix")
            server = _start(stack, place, program, side, spot)
            servers.append(server)
            measure(place, program, server, _FIRST_SECONDS)
        yield servers


def _start(stack: ExitStack, place: Place, program: Program, side: Side, spot: Spot) -> Server:
    environment = place.environment(side)
    plain = place.environment(replace(side, fused=False))
    for command in program.prepare(spot) if program.prepare else ():
        _run(command, plain)
    child = stack.enter_context(
        running(program.server(spot), environment, stop_with=program.stop_with)
    )
    deadline = time.monotonic() + _START_SECONDS
    while not (_listens(spot.port) or (spot.unix and _listens_at(spot.socket))):
        if child.ended() or time.monotonic() > deadline:
            raise child.failure(f"did not come to listen at {spot.where}")
        time.sleep(0.02)
    if program.fill:
        _run(program.fill(spot), plain)
    return Server(side, spot, child, Witness(place.broker, spot.port))


def measure(place: Place, program: Program, server: Server, seconds: float) -> Sample:
    """One client's run. Raises BenchError if a program fails or takes too long."""
    count = max(_LEAST_COUNT, round(server.rate * seconds))
    command = program.client(server.spot, seconds, count)
    server.witness.forget()
    before, start = processes.cpu_seconds(server.child.pid), time.monotonic()
    used = os.times()
    with running(command, place.environment(server.side)) as client:
        said = client.finish(seconds + _PATIENCE)
    took, after = time.monotonic() - start, os.times()
    # The client is the only child that was waited for meanwhile.
    client_cpu = after.children_user + after.children_system
    client_cpu -= used.children_user + used.children_system
    server_cpu = processes.cpu_seconds(server.child.pid) - before
    tree = processes.tree_of(server.child.pid)
    answer = program.answer(said, count)
    server.rate = answer.units / took
    if server.side.fused:
        payload = int(answer.units * program.least_bytes * _SHARE_FUSED)
        proof = server.witness.of_fused(tree, 1, payload)
    else:
        proof = server.witness.of_plain(tree)
    return Sample(
        value=answer.value,
        proof=proof,
        latency=answer.latency,
        client_cpu=per_unit(client_cpu, answer.units),
        server_cpu=per_unit(server_cpu, answer.units),
        memory_kb=processes.proportional_memory(tree),
    )


def _run(command: list[str], environment: dict[str, str]) -> None:
    with running(command, environment) as child:
        child.finish(_PREPARE_SECONDS)


def _free_port() -> int:
    """None that a connection which has just ended still has (TIME_WAIT): not every server sets
    SO_REUSEADDR, and neither does this."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    """Looks at the kernel's table: a connection would be served, and iperf3 serves one."""
    wanted = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError as error:
            raise BenchError(f"/proc/net/{name} can't be read: {error.strerror}") from error
        for fields in map(str.split, lines):
            if fields[3] == "0A" and fields[1].endswith(wanted):
                return True
    return False


def _listens_at(path: str) -> bool:
    """The same for a unix socket, by the flag of those that accept connections."""
    try:
        lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    except OSError as error:
        raise BenchError(f"/proc/net/unix can't be read: {error.strerror}") from error
    return any(line.endswith(f" {path}") and line.split()[3] == "00010000" for line in lines)
