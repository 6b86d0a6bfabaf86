"""One measurement with the C program of bench/: a server, a client, and a proof."""

from __future__ import annotations

import contextlib
import resource
import time

from loopfuse._bench import busy, calls, idle, processes, start
from loopfuse._bench.children import running
from loopfuse._bench.ends import PATIENCE, Ends, decoded, meeting, meeting_point
from loopfuse._bench.machine import cpus_of
from loopfuse._bench.place import Place
from loopfuse._bench.proof import Witness
from loopfuse._bench.results import Sample
from loopfuse._bench.sides import Side
from loopfuse._bench.workloads import Workload

_DESCRIPTORS = 2
"""For a connection, at each end: the socket, and a doorbell."""
_SPARE_DESCRIPTORS = 500
_APART = {
    "busy": busy.measure,
    "idle": idle.measure,
    "calls": calls.measure,
    "start": start.measure,
}
"""Kinds that take something else than one server and one client that measures."""
_SETTLING_LOOKS, _SETTLING_SECONDS, _SETTLED_KB = 12, 0.25, 200


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


def allow_connections(wanted: int) -> None:
    """Raises the hard limit of this process, and of those it starts, if that takes it and we
    may: only root does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        if most_connections() < wanted:
            needed = wanted * _DESCRIPTORS + _SPARE_DESCRIPTORS
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, max(hard, needed)))


def measure(place: Place, workload: Workload, side: Side, seconds: float) -> Sample:
    """Raises BenchError if a program fails or takes too long."""
    if workload.kind in _APART:
        return _APART[workload.kind](place, workload, side, seconds)
    work = {"memory": "many", "explain": "roundtrip"}.get(workload.kind, workload.kind)
    patience = PATIENCE + seconds + workload.connections / 100
    words = [
        f"work={work}",
        f"size={workload.size}",
        f"connections={workload.connections}",
        f"active={workload.active}",
    ]
    # Two busy loops on one CPU would measure the scheduler's time slice.
    where = "two" if side.polling and workload.cpus == "any" else workload.cpus
    cpus = cpus_of(where) or (None, None)
    if workload.kind == "self":
        return _measure_in_one_process(place, words, side, seconds, cpus[1])
    before = _settled_kernel_memory() if workload.kind == "memory" else 0
    for_client = (f"seconds={seconds}",)
    with meeting(place, side, words, client_words=for_client, cpus=cpus, patience=patience) as ends:
        sample = _watch(ends, workload, side, patience)
        if workload.kind == "memory":
            after = _settled_kernel_memory() + processes.private_memory(ends.pids)
            sample.value = (after - before) / workload.connections
        ends.client.finish(patience)
    return sample


def _measure_in_one_process(
    place: Place, words: list[str], side: Side, seconds: float, cpu: int | None
) -> Sample:
    assert cpu is not None
    with meeting_point(place, side) as (at, _):
        command = [place.measure, "client", f"over={side.over}", f"at={at}", *words]
        command.append(f"seconds={seconds}")
        before = processes.cpu_ticks(cpu)
        with running(command, place.environment(side), cpu=cpu) as client:
            while client.line(PATIENCE) != "warming":
                pass  # it is its own server, and says where that is
            client.tell()
            measured = decoded(client.line(PATIENCE + seconds))
            after = processes.cpu_ticks(cpu)
            proof = Witness(place.broker, None).of_plain((client.pid,))
            client.finish(PATIENCE)
    busy = after[1] - before[1]
    sample = measured.sample("self", proof)
    sample.server_cpu = None
    sample.softirq_share = (after[0] - before[0]) / busy if busy else None
    return sample


def _settled_kernel_memory() -> int:
    """Once what ended before has been freed, or some seconds have passed."""
    seen = processes.kernel_memory()
    for _ in range(_SETTLING_LOOKS):
        time.sleep(_SETTLING_SECONDS)
        last, seen = seen, processes.kernel_memory()
        if abs(seen - last) < _SETTLED_KB:
            break
    return seen


def _watch(ends: Ends, workload: Workload, side: Side, patience: float) -> Sample:
    lasting = workload.kind != "rate"
    if side.fused and lasting:
        ends.wait_until_fused(workload.connections)
    if side.fused:
        ends.witness.start()
    ends.client.tell()
    measured = decoded(ends.client.line(patience))
    if not side.fused:
        proof = ends.witness.of_plain(ends.pids)
    elif lasting:
        proof = ends.witness.of_fused(ends.pids, workload.connections, measured.bytes)
    else:
        proof = ends.witness.of_short(ends.pids)
    return measured.sample(workload.kind, proof)
