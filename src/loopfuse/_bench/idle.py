"""What connections cost on which nothing happens: CPU time of both ends, asleep in one call each,
and of the broker, all looked at from outside."""

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple

from loopfuse._bench import processes
from loopfuse._bench.ends import PATIENCE, Ends, meeting
from loopfuse._bench.place import Place
from loopfuse._bench.results import Sample
from loopfuse._bench.sides import Side
from loopfuse._bench.workloads import Workload

_TIMES_LONGER, _LEAST_SECONDS = 4, 2.5
"""Than other measurements, and in any case: what happens once a second is to be seen."""
_SETTLING = 0.3
"""Seconds until an end that has just been busy sleeps for good, and those it told to as well."""


def measure(place: Place, workload: Workload, side: Side, seconds: float) -> Sample:
    """Raises BenchError if a program fails or takes too long."""
    patience = PATIENCE + workload.connections / 100
    words = (
        "work=idle",
        f"size={workload.size}",
        f"connections={workload.connections}",
    )
    with meeting(place, side, words, patience=patience) as ends:
        if side.fused:
            ends.wait_until_fused(workload.connections)
        ends.client.tell()
        if ends.client.line(patience) != "asleep":
            raise ends.client.failure("did not go to sleep")
        spent = _spent_asleep(place, ends, max(_LEAST_SECONDS, _TIMES_LONGER * seconds))
        # Only now: the broker works to answer. It must say of all connections that what they
        # carry after the sleep takes their rings, too.
        if side.fused:
            ends.witness.start()
        os.kill(ends.client.pid, signal.SIGALRM)
        if ends.client.line(patience) != "awake":
            raise ends.client.failure("did not wake up")
        if side.fused:
            payload = 2 * workload.size * workload.connections
            proof = ends.witness.of_fused(ends.pids, workload.connections, payload)
        else:
            proof = ends.witness.of_plain(ends.pids)
        memory = processes.proportional_memory(ends.pids)
        ends.client.finish(patience)
    client, server, broker = spent.cpu
    ours = broker if side.fused else None
    return Sample(
        value=client + server + (ours or 0),
        proof=proof,
        client_cpu=client,
        server_cpu=server,
        broker_cpu=ours,
        sleeps=spent.switches,
        memory_kb=memory,
    )


class Spent(NamedTuple):
    """In a second."""

    cpu: list[float]
    """Microseconds of the client, the server and the broker."""
    switches: float
    """Of client and server together."""


def _spent_asleep(place: Place, ends: Ends, seconds: float) -> Spent:
    watched = (*ends.pids, place.broker_pid)
    time.sleep(_SETTLING)
    begin = time.monotonic()
    cpu = [processes.cpu_clock(pid) for pid in watched]
    switches = sum(processes.switches(pid) for pid in ends.pids)
    time.sleep(seconds)
    cpu = [processes.cpu_clock(pid) - before for pid, before in zip(watched, cpu, strict=True)]
    switches = sum(processes.switches(pid) for pid in ends.pids) - switches
    took = time.monotonic() - begin
    return Spent([1e6 * used / took for used in cpu], switches / took)
