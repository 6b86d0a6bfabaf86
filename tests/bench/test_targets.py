"""What is wanted, and whether it was measured."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from bench.made_up import FAILED, FUSED, cell, report, sample
from bench.test_report import shown
from loopfuse._bench.judging import judged, measured, summary
from loopfuse._bench.page import page
from loopfuse._bench.programs import PROGRAMS
from loopfuse._bench.results import Row, TargetResult
from loopfuse._bench.sides import sides_of
from loopfuse._bench.targets import TARGETS
from loopfuse._bench.workloads import Workload, full


def of(rows: list[Row], row: str) -> list[TargetResult]:
    return [result for result in judged(rows) if result.row == row]


def row_of(load: Workload, **values: float) -> Row:
    row = load.row()
    row.cells = [cell(side.replace("_", "-"), sample(value)) for side, value in values.items()]
    return row


TWO_CPUS = Workload("roundtrip", 1, cpus="two")


def test_a_full_run_measures_all_that_the_targets_need() -> None:
    sides = {load.id: {side.key for side in sides_of(load.kind)} for load in full(10000)}
    sides |= {program.id: {side.key for side in program.sides} for program in PROGRAMS}
    for target in TARGETS:
        row = next(id for id in sides if fnmatchcase(id, target.row))
        assert {"loopfuse", *target.against} <= sides[row], target


def test_ratios_are_held_against_what_is_required() -> None:
    rows = [row_of(TWO_CPUS, tcp=120, tcp_poll=14, unix_poll=8, loopfuse=1, floor=0.5)]
    found = of(rows, "roundtrip-1-two-cpu")
    assert [(r.value, r.reached) for r in found] == [(120, True), (14, False), (8, True), (2, True)]
    assert [r.required for r in found] == [
        "at least 100 x",
        "at least 15 x",
        "at least 8 x",
        "at most 2.5 x",
    ]


def test_of_several_sides_the_best_counts() -> None:
    load = Workload("stream", 16384)
    values = {"tcp": 1, "tcp_poll": 2, "unix": 4, "unix_poll": 3, "loopfuse": 10, "floor": 16}
    found = of([row_of(load, **values)], load.id)
    assert [(r.value, r.reached) for r in found] == [(10, True), (2.5, False), (1.6, False)]


def test_as_fast_is_not_faster_but_not_slower_either() -> None:
    memcached = next(program for program in PROGRAMS if program.id == "memcached").row()
    memcached.cells = [cell(side, sample(5)) for side in ("tcp", "unix", "loopfuse")]
    assert [r.reached for r in of([memcached], "memcached")] == [False, False]
    one_cpu = row_of(Workload("roundtrip", 1, cpus="one"), unix=5, loopfuse=5)
    assert [r.reached for r in of([one_cpu], one_cpu.id)] == [True]


def test_cpu_time_counts_that_of_the_broker() -> None:
    load = Workload("busy", 1, pairs=4)
    row = row_of(load, tcp=10, loopfuse=10)
    ours = row.cell("loopfuse")
    assert ours is not None
    assert [r.reached for r in of([row], load.id)] == [True, True]
    ours.samples[0].broker_cpu = 0.5
    assert [(r.value, r.reached) for r in of([row], load.id)] == [(1, True), (1.25, False)]


def test_memory_is_what_comes_on_top_of_the_kernels_own() -> None:
    row = row_of(Workload("memory", 64, 200, 200), tcp=5, unix=4, loopfuse=22)
    assert [(r.value, r.reached) for r in of([row], "memory-64-*")] == [(17, False)]


def test_an_idle_connection_must_cost_nothing_at_all() -> None:
    row = row_of(Workload("idle", 64, 1, 0), tcp=0, loopfuse=7)
    ours = row.cell("loopfuse")
    assert ours is not None
    ours.samples[0].client_cpu, ours.samples[0].server_cpu = 0, 0
    ours.samples[0].broker_cpu = 7
    found = of([row], "idle-64-1-0")
    assert [(r.value, r.reached) for r in found] == [(0, True), (7, False)]


def test_one_of_many_is_held_against_one_alone() -> None:
    alone, small, crowd, limited = (
        row_of(Workload("many", 64, n, 1), tcp=50, loopfuse=value)
        for n, value in ((1, 130), (1000, 120), (10000, 100), (9750, 65))
    )
    found = of([alone, small, crowd], "many-64-*-1")
    assert [(r.value, r.reached, r.measured) for r in found] == [(1.3, True, "1.3 x")]
    found = of([alone, small, limited], "many-64-*-1")
    assert [(r.reached, r.measured) for r in found] == [(False, "2 x (9,750 connections)")]


def test_a_small_crowd_is_none() -> None:
    other = row_of(TWO_CPUS, tcp=1, tcp_poll=1, unix_poll=1, floor=1, loopfuse=1)
    small = [row_of(Workload("many", 64, n, 1), tcp=50, loopfuse=50) for n in (1, 1000)]
    found = of([other, *small], "many-64-*-1")
    assert found[0].reached is None and "1,000 connections at most" in (found[0].missing or "")


def test_a_call_is_judged_by_its_time_unless_the_kernels_instructions_are_counted() -> None:
    row = row_of(Workload("calls", 64, on="pipe"), tcp=100, loopfuse=103)
    assert [(r.value, r.reached) for r in of([row], row.id)] == [(pytest.approx(1.03), False)]
    for made, user in zip(row.cells, (20, 30), strict=True):
        made.samples[0].user_instructions = user
    assert "(time)" in of([row], row.id)[0].measured
    for made in row.cells:
        made.samples[0].kernel_instructions = 980
    found = of([row], row.id)
    assert [(r.value, r.reached) for r in found] == [(pytest.approx(1.01), True)]
    assert "instructions" in found[0].measured


def test_without_a_figure_nothing_is_reached_or_missed() -> None:
    row = row_of(TWO_CPUS, tcp=120, tcp_poll=30, loopfuse=1, floor=0.5)
    row.cells.append(cell("unix-poll", sample(8, FAILED)))
    results = judged([row])
    by_unix = next(r for r in results if r.row == row.id and r.against == "AF_UNIX, polling")
    assert by_unix.reached is None and FAILED.words in (by_unix.missing or "")
    others = [r for r in results if r.row != row.id]
    assert others and all(r.missing == "not measured in this run" for r in others)
    elsewhere = f"{len(others)} not measured in this run"
    assert summary(results) == f"3 of 3 targets reached, 1 without a figure, {elsewhere}"
    assert measured(results) == [r for r in results if r.row == row.id]


def test_a_run_that_has_no_figure_of_any_target_has_no_targets() -> None:
    assert judged([]) == []
    fused = row_of(Workload("roundtrip", 64))
    fused.cells = [cell("loopfuse", sample(1, FUSED))]
    assert judged([fused]) == []


def test_the_report_ends_with_them() -> None:
    made = report()
    made.targets = judged(made.rows)
    assert made.targets
    for text in (" ".join(shown(made).split()), page(made)):
        assert summary(made.targets) in text
        assert "at least 100 x" in text
        assert "pgbench" not in text


def test_being_watched_may_cost_a_fiftieth() -> None:
    trip = row_of(
        Workload("watching", 1),
        loopfuse=100,
        loopfuse_top=102,
        loopfuse_metrics=103,
        loopfuse_tap=50,
    )
    found = of([trip], trip.id)
    assert [(r.value, r.reached) for r in found] == [(1.02, True), (1.03, False), (0.5, True)]
    stream = row_of(Workload("watching", 64, work="stream"), loopfuse=102, loopfuse_top=100)
    assert [(r.value, r.reached) for r in of([stream], stream.id)][:1] == [(1.02, True)]
