"""python -m teardown.act JOBS BROKER CELL...: acts out cells, prints one JSON line for each.

Knows nothing of loopfuse: run it plain and fused. BROKER is a process to kill, or 0.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import traceback
from multiprocessing.synchronize import Barrier

from teardown.cell import Play
from teardown.cells import CELLS, Cell

_READY_WITHIN = 20.0


class _Job:
    """One cell in a worker."""

    def __init__(self, broker: int, barrier: Barrier) -> None:
        self._broker, self._barrier = broker, barrier

    def __call__(self, number: int) -> dict[str, object]:
        cell = CELLS[number]
        answer: dict[str, object] = {"cell": number}
        try:
            play = Play(cell, self._broker, lambda: self._barrier.wait(_READY_WITHIN))
            try:
                answer |= {"outcome": play.act(), "port": play.port, "mapped": play.mapped}
            finally:
                play.end()
        except Exception as error:
            answer |= {"failed": str(error), "trace": traceback.format_exc()}
        return answer


_job: _Job


def _run(number: int) -> dict[str, object]:
    return _job(number)


def main() -> None:
    global _job
    jobs, broker = int(sys.argv[1]), int(sys.argv[2])
    wanted = [CELLS.index(Cell(*_split(name))) for name in sys.argv[3:]]
    context = multiprocessing.get_context("fork")
    _job = _Job(broker, context.Barrier(sum(CELLS[n].way == "broker-gone" for n in wanted) or 1))
    # A process for each cell: it may move to a namespace of its own.
    with context.Pool(jobs, maxtasksperchild=1) as pool:
        for answer in pool.imap_unordered(_run, wanted, chunksize=1):
            print(json.dumps(answer), flush=True)


def _split(name: str) -> tuple[str, str]:
    way, _, doing = name.rpartition("-")
    return way, doing


if __name__ == "__main__":
    main()
