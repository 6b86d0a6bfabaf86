"""What single calls cost where there is nothing to fuse: the client runs under loopfuse, or not,
and its server never does. Time is that of the whole call, the kernel's part included.
Instructions are counted by the CPU where the machine lets us, in user space and in the kernel;
otherwise callgrind counts those in user space. Both count the loop around the calls as well."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

import msgspec

from loopfuse._bench import callgrind
from loopfuse._bench.ends import PATIENCE, meeting
from loopfuse._bench.machine import cpus_of
from loopfuse._bench.place import Place
from loopfuse._bench.results import Proof, Sample
from loopfuse._bench.sides import TCP, Side
from loopfuse._bench.workloads import Workload
from loopfuse._errors import BenchError

_CONNECTED = 0.1
"""Seconds in which a client under loopfuse has come to know that there is nothing to fuse."""
_COUNTED_SECONDS = 0.1


class Called(msgspec.Struct):
    """What the client prints, bench/work_calls.c."""

    calls: float
    typical_ns: float
    user_instructions: float | None = None
    kernel_instructions: float | None = None
    refusal: str | None = None


def measure(place: Place, workload: Workload, side: Side, seconds: float) -> Sample:
    """Raises BenchError if a program fails or takes too long."""
    # A client that is moved between CPUs would measure the caches, too.
    cpus = cpus_of("two") or (None, None)
    found, proof = _ask(place, workload, side, seconds, cpus=cpus)
    sample = Sample(
        value=found.typical_ns,
        proof=proof,
        user_instructions=found.user_instructions,
        kernel_instructions=found.kernel_instructions,
        counting="by the CPU, in user space and in the kernel",
    )
    if sample.user_instructions is None:
        _count_in_user_space(place, workload, side, sample, found.refusal)
    elif sample.kernel_instructions is None:
        sample.counting = "by the CPU, in user space only: the kernel's are refused"
    return sample


def _count_in_user_space(
    place: Place, workload: Workload, side: Side, sample: Sample, refusal: str | None
) -> None:
    """With callgrind. The time is good without it, too."""
    refused = f"the CPU's counter is refused ({refusal})"
    why = callgrind.obstacle()
    try:
        if why is None:
            sample.user_instructions = _counted_by_callgrind(place, workload, side)
    except BenchError as error:
        why = str(error)
    if why is None:
        sample.counting = f"by callgrind, in user space only: {refused}"
    else:
        sample.counting = f"not counted: {refused}; {why}"


def _ask(
    place: Place,
    workload: Workload,
    side: Side,
    seconds: float,
    *,
    under: Sequence[str] = (),
    cpus: tuple[int | None, int | None] = (None, None),
) -> tuple[Called, Proof]:
    words = (f"work=calls-{workload.on}", f"size={workload.size}")
    told = (f"seconds={seconds}",)
    with meeting(
        place, side, words, client_words=told, client_under=under, server_side=TCP, cpus=cpus
    ) as ends:
        time.sleep(_CONNECTED)
        ends.client.tell()
        line = ends.client.line(PATIENCE + seconds)
        try:
            found = msgspec.json.decode(line, type=Called)
        except msgspec.DecodeError as error:
            raise BenchError(f"the measuring program printed nonsense: {error}") from error
        if side.fused:
            proof = ends.witness.of_unfused(ends.client.pid)
        else:
            proof = ends.witness.of_plain(ends.pids)
        ends.client.finish(PATIENCE)
    return found, proof


@functools.cache
def _counted_by_callgrind(place: Place, workload: Workload, side: Side) -> float:
    """Instructions in user space for a call. Once a run: they do not vary as time does."""
    log = place.folder / "callgrind.log"
    under = callgrind.command(log, "work_calls_counted")
    found, proof = _ask(place, workload, side, _COUNTED_SECONDS, under=under)
    if not proof.holds:
        raise BenchError(f"under callgrind: {proof.words}")
    return callgrind.counted(log) / found.calls
