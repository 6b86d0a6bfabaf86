"""What it costs to start a program that does nothing, and to see it end."""

from __future__ import annotations

import os
import shutil
import statistics
import time

from loopfuse._bench.children import running
from loopfuse._bench.ends import PATIENCE
from loopfuse._bench.place import Place
from loopfuse._bench.proof import Witness
from loopfuse._bench.results import Sample
from loopfuse._bench.sides import Side
from loopfuse._bench.statistics import per_unit
from loopfuse._bench.workloads import Workload
from loopfuse._errors import BenchError


def measure(place: Place, _workload: Workload, side: Side, seconds: float) -> Sample:
    """Raises BenchError if a program fails."""
    environment = place.environment(side)
    path = shutil.which("true")
    if path is None:
        raise BenchError("not found: true")
    witness = Witness(place.broker, None)
    # One that stays long enough to be looked at, and is started alike.
    with running(["cat"], environment) as stays:
        stays.tell()
        stays.line(PATIENCE)  # back again: it runs
        proof = witness.of_unfused(stays.pid) if side.fused else witness.of_plain((stays.pid,))
        stays.finish(PATIENCE)
    times: list[float] = []
    before, end = os.times(), time.monotonic() + seconds
    while not times or time.monotonic() < end:
        start = time.monotonic()
        pid = os.posix_spawn(path, [path], environment)
        _, status = os.waitpid(pid, 0)
        times.append(time.monotonic() - start)
        if status != 0:
            raise BenchError(f"{path} failed")
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    return Sample(
        value=1e6 * statistics.median(times),
        proof=proof,
        client_cpu=per_unit(used, len(times)),
    )
