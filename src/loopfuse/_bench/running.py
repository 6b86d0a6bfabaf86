"""One measurement with the C program of bench/: a server, a client, and a proof."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from loopfuse._bench import processes, sockmap
from loopfuse._bench.children import Child, running
from loopfuse._bench.machine import cpus_of
from loopfuse._bench.place import Place
from loopfuse._bench.proof import Witness
from loopfuse._bench.results import Latency, Sample
from loopfuse._bench.sides import Side
from loopfuse._bench.statistics import per_unit
from loopfuse._bench.workloads import Workload
from loopfuse._errors import BenchError

_PATIENCE = 20.0
_FLOOR_MEMORY = 1 << 20  # bench/floor.h
_DESCRIPTORS = 2
"""For a connection, at each end: the socket, and a doorbell."""
_SPARE_DESCRIPTORS = 500
_SETTLING_LOOKS, _SETTLING_SECONDS, _SETTLED_KB = 12, 0.25, 200


class Latencies(msgspec.Struct):
    """In nanoseconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float

    def in_microseconds(self) -> Latency:
        return Latency(*(getattr(self, name) / 1e3 for name in self.__struct_fields__))


class Measured(msgspec.Struct):
    """What the client prints, bench/meter.c."""

    units: int
    bytes: int
    seconds: float
    client_cpu: float
    server_cpu: float
    sleeps: int
    memory_kb: int
    latency_ns: Latencies | None


def obstacle(workload: Workload) -> str | None:
    """Why it can't be measured here; None: it can."""
    if workload.cpus == "two" and cpus_of("two") is None:
        return "this process may use one CPU only"
    if workload.connections > most_connections():
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return f"the hard limit of open files is {limit:,} (ulimit -Hn)"
    return None


def most_connections() -> int:
    """That a process can have here with both of their descriptors, in round figures."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (limit - _SPARE_DESCRIPTORS) // _DESCRIPTORS // 50 * 50


def measure(place: Place, workload: Workload, side: Side, seconds: float) -> Sample:
    """Raises BenchError if a program fails or takes too long."""
    work = {"memory": "many", "explain": "roundtrip"}.get(workload.kind, workload.kind)
    patience = _PATIENCE + seconds + workload.connections / 100
    common = [
        f"over={side.over}",
        f"waiting={'poll' if side.polling else 'block'}",
        f"work={work}",
        f"size={workload.size}",
        f"connections={workload.connections}",
        f"active={workload.active}",
    ]
    environment = place.environment(side)
    # Two busy loops on one CPU would measure the scheduler's time slice.
    where = "two" if side.polling and workload.cpus == "any" else workload.cpus
    cpus = cpus_of(where) or (None, None)
    if workload.kind == "self":
        return _measure_in_one_process(place, common, side, seconds, cpus[1])
    before = _settled_kernel_memory() if workload.kind == "memory" else 0
    with _meeting_point(place, side) as (at, fds), _joining(side) as ends:
        command = [place.measure, "server", *common, f"at={at}", *ends[0].words]
        with running(command, environment, fds=(*fds, *ends[0].fds), cpu=cpus[0]) as server:
            at = server.line(patience).removeprefix("ready ")
            command = [place.measure, "client", *common, f"at={at}", f"seconds={seconds}"]
            command += [f"peer={server.pid}", *ends[1].words]
            with running(command, environment, fds=(*fds, *ends[1].fds), cpu=cpus[1]) as client:
                port = int(at) if side.over == "tcp" else None
                witness = Witness(place.broker, port)
                sample = _watch(client, server, witness, workload, side, patience)
                if workload.kind == "memory":
                    pids = (server.pid, client.pid)
                    after = _settled_kernel_memory() + processes.private_memory(pids)
                    sample.value = (after - before) / workload.connections
                client.finish(patience)
    return sample


def _measure_in_one_process(
    place: Place, common: list[str], side: Side, seconds: float, cpu: int | None
) -> Sample:
    assert cpu is not None
    with _meeting_point(place, side) as (at, _):
        command = [place.measure, "client", *common, f"at={at}", f"seconds={seconds}"]
        before = processes.cpu_ticks(cpu)
        with running(command, place.environment(side), cpu=cpu) as client:
            while client.line(_PATIENCE) != "warming":
                pass  # it is its own server, and says where that is
            client.tell()
            measured = _decoded(client.line(_PATIENCE + seconds))
            after = processes.cpu_ticks(cpu)
            proof = Witness(place.broker, None).of_plain((client.pid,))
            client.finish(_PATIENCE)
    busy = after[1] - before[1]
    return Sample(
        value=measured.seconds * 1e6 / measured.units,
        proof=proof,
        latency=measured.latency_ns.in_microseconds() if measured.latency_ns else None,
        client_cpu=per_unit(measured.client_cpu, measured.units),
        sleeps=measured.sleeps / measured.units,
        softirq_share=(after[0] - before[0]) / busy if busy else None,
        memory_kb=measured.memory_kb,
    )


def _settled_kernel_memory() -> int:
    """Once what ended before has been freed, or some seconds have passed."""
    seen = processes.kernel_memory()
    for _ in range(_SETTLING_LOOKS):
        time.sleep(_SETTLING_SECONDS)
        last, seen = seen, processes.kernel_memory()
        if abs(seen - last) < _SETTLED_KB:
            break
    return seen


@contextmanager
def _meeting_point(place: Place, side: Side) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What the programs call `at`, and the descriptors they inherit for it."""
    if side.over == "tcp":
        yield "0", ()
    elif side.over == "unix":
        path = place.folder / "measure.sock"
        path.unlink(missing_ok=True)
        yield str(path), ()
    else:
        memory = os.memfd_create("loopfuse-bench-floor")
        try:
            os.ftruncate(memory, _FLOOR_MEMORY)
            yield str(memory), (memory,)
        finally:
            os.close(memory)


class Joining(NamedTuple):
    """What an end is told and given to have its sends redirected."""

    words: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()


@contextmanager
def _joining(side: Side) -> Iterator[list[Joining]]:
    """For the server and the client."""
    if not side.sockmap:
        yield [Joining(), Joining()]
        return
    with sockmap.maps() as maps:
        yield [Joining((f"sockmap={fd}",), (fd,)) for fd in maps]


def _watch(
    client: Child, server: Child, witness: Witness, workload: Workload, side: Side, patience: float
) -> Sample:
    if client.line(patience) != "warming":
        raise client.failure("did not begin")
    lasting = workload.kind != "rate"
    if side.fused and lasting:
        witness.wait_until_fused(workload.connections, lambda: not client.ended())
    if side.fused:
        witness.start()
    client.tell()
    measured = _decoded(client.line(patience))
    pids = (client.pid, server.pid)
    if not side.fused:
        proof = witness.of_plain(pids)
    elif lasting:
        proof = witness.of_fused(pids, workload.connections, measured.bytes)
    else:
        proof = witness.of_short(pids)
    units = measured.bytes / 1e6 if workload.kind == "stream" else measured.units
    return Sample(
        value=_value(workload, measured),
        proof=proof,
        latency=measured.latency_ns.in_microseconds() if measured.latency_ns else None,
        client_cpu=per_unit(measured.client_cpu, units),
        server_cpu=per_unit(measured.server_cpu, units),
        sleeps=measured.sleeps / units if units else None,
        memory_kb=measured.memory_kb,
    )


def _decoded(line: str) -> Measured:
    try:
        measured = msgspec.json.decode(line, type=Measured)
    except msgspec.DecodeError as error:
        raise BenchError(f"the measuring program printed nonsense: {error}") from error
    if measured.units == 0 or measured.seconds <= 0:
        raise BenchError("the measuring program came to nothing: give it more --seconds")
    return measured


def _value(workload: Workload, measured: Measured) -> float:
    if workload.kind in ("roundtrip", "explain"):
        return measured.seconds * 1e6 / measured.units
    if workload.kind == "stream":
        return measured.bytes / measured.seconds / 1e9
    return measured.units / measured.seconds
