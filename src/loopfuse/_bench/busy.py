"""Several pairs of ends, all busy at once: what they get done together, and the CPU time that it
takes, where CPUs are fewer than threads that want one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from loopfuse._bench import processes
from loopfuse._bench.ends import PATIENCE, Measured, decoded, meeting
from loopfuse._bench.place import Place
from loopfuse._bench.proof import all_of
from loopfuse._bench.results import Sample
from loopfuse._bench.sides import Side
from loopfuse._bench.statistics import per_unit
from loopfuse._bench.workloads import Workload


def measure(place: Place, workload: Workload, side: Side, seconds: float) -> Sample:
    """Raises BenchError if a program fails or takes too long."""
    patience = PATIENCE + seconds
    words = (f"work={workload.work}", f"size={workload.size}")
    told = (f"seconds={seconds}",)
    with ExitStack() as stack:
        pairs = [
            stack.enter_context(
                meeting(place, side, words, client_words=told, name=f"busy-{i}", patience=patience)
            )
            for i in range(workload.pairs)
        ]
        for ends in pairs if side.fused else ():
            ends.wait_until_fused(1)
            ends.witness.start()
        broker = processes.cpu_clock(place.broker_pid)
        # Those that are told last keep the CPUs as busy meanwhile: they are warming up.
        for ends in pairs:
            ends.client.tell()
        results = [decoded(ends.client.line(patience)) for ends in pairs]
        broker = processes.cpu_clock(place.broker_pid) - broker
        proofs = [
            ends.witness.of_fused(ends.pids, 1, found.bytes)
            if side.fused
            else ends.witness.of_plain(ends.pids)
            for ends, found in zip(pairs, results, strict=True)
        ]
        for ends in pairs:
            ends.client.finish(patience)
    units = sum(found.work_done(workload.work) for found in results)
    scale = 1e-3 if workload.work == "stream" else 1.0  # MB as GB
    return Sample(
        value=scale * units / _stretch(results),
        proof=all_of(proofs),
        client_cpu=per_unit(sum(found.client_cpu for found in results), units),
        server_cpu=per_unit(sum(found.server_cpu for found in results), units),
        broker_cpu=per_unit(broker, units) if side.fused else None,
        sleeps=sum(found.sleeps for found in results) / units,
        memory_kb=sum(found.memory_kb for found in results),
    )


def _stretch(results: Sequence[Measured]) -> float:
    """From the first start to the last end. Each pair's own rate, added up, would be too much:
    who begins late has the CPUs to itself at the end."""
    end = max(found.start + found.seconds for found in results)
    return end - min(found.start for found in results)
