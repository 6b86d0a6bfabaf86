"""A whole run: every workload in every round, the sides taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from loopfuse import __version__
from loopfuse._bench import machine, program_runs, running, sockmap, watching, workloads
from loopfuse._bench.explanation import explanation_of
from loopfuse._bench.judging import judged
from loopfuse._bench.method import method_of
from loopfuse._bench.place import Place, prepared
from loopfuse._bench.program import Program
from loopfuse._bench.programs import PROGRAMS
from loopfuse._bench.results import SCHEMA, Fact, Report, Row, Sample, SideFacts
from loopfuse._bench.sides import SIDES, Side, sides_of
from loopfuse._bench.statistics import summarise
from loopfuse._bench.workloads import MOST, Workload
from loopfuse._errors import BenchError

Tell = Callable[[int, str], None]
"""Called as so many of the measurements are done and the named one begins."""

_SOCKMAP = (
    "only round trips are measured: a redirected socket has no back-pressure, so a stream whose "
    "reader is slower fills all of the host's TCP memory, which no benchmark should risk"
)


@dataclass(frozen=True)
class Plan:
    """What to run, and for how long."""

    loads: Sequence[Workload]
    programs: Sequence[Program]
    rounds: int
    seconds: float
    """Of one measurement; real programs that count in whole seconds take at least one."""
    left_out: Sequence[Fact] = ()
    """What there would be on another machine."""

    @property
    def steps(self) -> int:
        cells = sum(len(sides_of(load.kind)) for load in self.loads)
        return self.rounds * (cells + sum(len(program.sides) for program in self.programs))


def plan(
    *,
    quick: bool,
    only: Sequence[str],
    rounds: int | None,
    seconds: float | None,
    explain: bool = False,
) -> Plan:
    """From what the command line says; `only` names kinds, none: all, or just what the
    explanation needs."""
    loads = workloads.quick() if quick else workloads.full(running.most_connections())
    programs = [p for p in PROGRAMS if not quick or p.id in ("redis-1", "asyncio")]
    if only or explain:
        loads = [load for load in loads if load.kind in only]
        programs = programs if "programs" in only else []
    if explain:
        loads = [*workloads.explaining(), *loads]
    most = max((load.connections for load in loads if load.kind == "many"), default=0)
    return Plan(
        loads,
        programs,
        rounds or (3 if quick else 5),
        seconds or (0.2 if quick else 0.5),
        () if quick or most in (0, MOST) else [_smaller_crowd(most)],
    )


def _smaller_crowd(most: int) -> Fact:
    limit = running.obstacle(Workload("many", 64, MOST, 1))
    return Fact(f"{MOST:,} connections", f"{limit}: {most:,} take their place")


def run(plan: Plan, tell: Tell) -> Report:
    """Measures. Raises BenchError if nothing can be; what fails in between is in the report."""
    started, clock = datetime.now(timezone.utc), time.monotonic()
    warning = machine.disturbance()
    facts = machine.facts()
    with prepared() as place:
        session = _Session(place, plan, tell)
        rows = [*session.loads(), *session.watched(), *session.programs()]
    left_out = [
        *plan.left_out,
        *session.left_out,
        Fact("eBPF sockmap", sockmap.obstacle() or _SOCKMAP),
    ]
    if warning is not None:
        left_out.insert(0, Fact("an idle machine", warning))
    for row in rows:
        for cell in row.cells:
            summarise(cell)
    explanation = explanation_of(rows)
    if explanation is None and any(load.kind == "explain" for load in plan.loads):
        left_out.append(
            Fact("explanation", "it takes figures that are missing here, or longer --seconds")
        )
    return Report(
        schema=SCHEMA,
        version=__version__,
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 1),
        rounds=plan.rounds,
        machine=facts,
        method=method_of(plan.rounds, plan.seconds, rows),
        sides=[SideFacts(side.key, side.title, side.words) for side in SIDES],
        rows=rows,
        left_out=left_out,
        explanation=explanation,
        targets=judged(rows),
    )


class _Session:
    """Goes through the plan, with a count of what is done."""

    def __init__(self, place: Place, plan: Plan, tell: Tell) -> None:
        self._place = place
        self._plan = plan
        self._tell = tell
        self._done = 0
        self.left_out: list[Fact] = []

    def loads(self) -> list[Row]:
        """Rounds on the outside: whatever drifts, drifts for all alike."""
        rows = []
        for load in self._plan.loads:
            if load.kind == "watching":
                continue
            if (why := running.obstacle(load)) is not None:
                self.left_out.append(Fact(load.title, why))
                self._done += self._plan.rounds * len(sides_of(load.kind))
            else:
                rows.append((load, load.row()))
        for number in range(self._plan.rounds):
            for load, row in rows:
                measure = partial(running.measure, self._place, load, seconds=self._plan.seconds)
                self._round(row, sides_of(load.kind), number, measure)
        return [row for _, row in rows]

    def watched(self) -> list[Row]:
        """Each row has its connection, and those who watch it, for all rounds."""
        rows = []
        for load in self._plan.loads:
            if load.kind != "watching":
                continue
            row = load.row()
            self._tell(self._done, f"{row.title}: starting")
            try:
                with watching.watchable(self._place, load, self._plan.seconds) as watched:
                    for number in range(self._plan.rounds):
                        self._round(row, sides_of(load.kind), number, watched.measure)
            except BenchError as error:
                self.left_out.append(Fact(load.title, str(error)))
                continue
            rows.append(row)
        return rows

    def programs(self) -> list[Row]:
        rows = []
        for program in self._plan.programs:
            if missing := program.missing():
                self.left_out.append(Fact(program.title, f"not found: {', '.join(missing)}"))
                self._done += self._plan.rounds * len(program.sides)
                continue
            row = program.row()
            try:
                self._program(program, row)
            except BenchError as error:
                self.left_out.append(Fact(program.title, str(error)))
                continue
            rows.append(row)
        return rows

    def _program(self, program: Program, row: Row) -> None:
        self._tell(self._done, f"{program.title}: starting")
        with program_runs.serving(self._place, program, program.sides) as servers:
            by_side = {server.side.key: server for server in servers}
            for number in range(self._plan.rounds):
                self._round(
                    row,
                    program.sides,
                    number,
                    lambda side: program_runs.measure(
                        self._place, program, by_side[side.key], self._plan.seconds
                    ),
                )

    def _round(
        self, row: Row, sides: Sequence[Side], number: int, measure: Callable[[Side], Sample]
    ) -> None:
        """Each side once. Every other round begins at the other end, so that no side always
        comes after the same one."""
        pairs = list(zip(sides, row.cells, strict=True))
        for side, cell in pairs if number % 2 == 0 else pairs[::-1]:
            self._tell(self._done, f"{row.title}: {side.title}")
            self._done += 1
            if cell.missing is not None:
                continue  # it failed in an earlier round
            try:
                cell.samples.append(measure(side))
            except BenchError as error:
                cell.missing = str(error)
