"""`loopfuse bench` as a person runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from bench.made_up import PLAIN
from broker_fixtures import START, eventually
from commands import LOOPFUSE, loopfuse
from conftest import tool
from holdings import children_of
from loopfuse._bench import (
    callgrind,
    calls,
    children,
    idle,
    place,
    proof,
    running,
    session,
    sockmap,
)
from loopfuse._bench.programs import PROGRAMS
from loopfuse._bench.results import Report, Row
from loopfuse._bench.sides import TCP, sides_of
from loopfuse._bench.statistics import cpu_of
from loopfuse._bench.workloads import Workload
from loopfuse._cli import cli
from loopfuse._errors import BenchError

TINY = ("--quick", "--rounds", "1", "--seconds", "0.01")


def bench(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return loopfuse(None, "bench", *arguments, **extra)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "teleport"], "teleport"),
        (["--rounds", "0"], "--rounds"),
        (["--seconds", "soon"], "soon"),
        (["--json", "/nowhere/at/all/x.json"], "There is no directory /nowhere/at/all"),
        (["--html", "/proc/x.html"], "/proc/x.html can't be written"),
        (["extra"], "extra"),
    ],
    ids=str,
)
def test_bad_arguments_are_refused_at_once(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(cli, ["bench", *arguments])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Report, str, list[str]]:
    """What one tiny run said, its figures, its page, and what it left in the temporary folder."""
    folder = tmp_path_factory.mktemp("bench")
    temporary = folder / "tmp"
    temporary.mkdir()
    json, html = folder / "figures.json", folder / "report.html"
    kinds = ("roundtrip", "stream", "rate")
    only = [word for kind in kinds for word in ("--only", kind)]
    files = ("--json", str(json), "--html", str(html))
    done = bench(*TINY, *only, *files, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stdout + done.stderr
    report = msgspec.json.decode(json.read_bytes(), type=Report)
    return done.stdout, report, html.read_text(), [path.name for path in temporary.iterdir()]


def samples(rows: list[Row], *, fused: bool) -> list[proof.Proof]:
    return [
        sample.proof
        for row in rows
        for cell in row.cells
        if (cell.side == "loopfuse") == fused
        for sample in cell.samples
    ]


def test_what_is_called_loopfuse_was_fused(measured: tuple[str, Report, str, list[str]]) -> None:
    said, report, html, _ = measured
    proofs = samples([row for row in report.rows if row.kind != "rate"], fused=True)
    assert len(proofs) == 6
    assert all(p.holds and p.fused == 1 and p.ring_bytes > 0 for p in proofs)
    assert "6 of 6 measurements of loopfuse were fused" in " ".join(said.split())
    assert report.proof() in html


def test_what_is_called_plain_was_not(measured: tuple[str, Report, str, list[str]]) -> None:
    _, report, _, _ = measured
    proofs = samples(report.rows, fused=False)
    kinds = [row.kind for row in report.rows]
    assert len(proofs) == sum(len(sides_of(kind)) - 1 for kind in kinds)
    assert all(p.holds and p.connections == p.ring_bytes == 0 for p in proofs)


def test_all_payload_of_a_fused_round_trip_took_the_rings(
    measured: tuple[str, Report, str, list[str]],
) -> None:
    _, report, _, _ = measured
    row = next(row for row in report.rows if row.id == "roundtrip-16384")
    cell = row.cell("loopfuse")
    assert cell is not None and cell.value is not None
    assert cell.samples[0].proof.ring_bytes >= 2 * 16384


def test_a_run_leaves_nothing_behind(measured: tuple[str, Report, str, list[str]]) -> None:
    assert measured[3] == []


def test_many_connections_are_all_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_SETTLING_LOOKS", 1)
    plan = session.plan(quick=True, only=["many", "memory"], rounds=1, seconds=0.01)
    report = session.run(plan, lambda _done, _what: None)
    proofs = samples(report.rows, fused=True)
    assert [p.fused for p in proofs] == [100, 100, 200]
    assert not report.incomplete()


def test_busy_pairs_are_all_fused_and_counted_together() -> None:
    plan = session.plan(quick=True, only=["busy"], rounds=1, seconds=0.05)
    report = session.run(plan, lambda _done, _what: None)
    assert not report.incomplete()
    assert [p.fused for p in samples(report.rows, fused=True)] == [4, 4]
    for cell in (cell for row in report.rows for cell in row.cells):
        assert (cell.samples[0].broker_cpu is not None) == cell.is_fused
        assert cpu_of(cell)


def test_idle_connections_are_fused_before_and_after_they_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idle, "_LEAST_SECONDS", 0.3)
    plan = session.plan(quick=False, only=["idle"], rounds=1, seconds=0.05)
    report = session.run(plan, lambda _done, _what: None)
    assert not report.incomplete()
    fused = samples(report.rows, fused=True)
    assert [p.fused for p in fused] == [1, 100]
    assert [p.ring_bytes for p in fused] == [2 * 64, 100 * 2 * 64]
    for row in report.rows:
        plain = row.cell("tcp")
        assert plain is not None and plain.value is not None and plain.value.median == 0
        assert plain.samples[0].sleeps == 0


def test_calls_that_nothing_fuses_are_made_under_the_library_and_without_it() -> None:
    plan = session.plan(quick=False, only=["calls"], rounds=1, seconds=0.01)
    report = session.run(plan, lambda _done, _what: None)
    assert not report.incomplete()
    proofs = samples(report.rows, fused=True)
    assert all("nothing to fuse" in p.words and p.ring_bytes == 0 for p in proofs)
    assert len(proofs) == 5
    assert any(fact.name == "instructions" for fact in report.method)
    for cell in (cell for row in report.rows for cell in row.cells):
        counted = cell.samples[0].user_instructions
        assert counted is None or 5 < counted < 5000


def test_without_a_count_of_instructions_there_are_times_and_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = calls.Called(100, 50.0, refusal="No such device")
    monkeypatch.setattr(calls, "_ask", lambda *_args, **_kw: (refused, PLAIN))
    monkeypatch.setattr(callgrind, "obstacle", lambda: None)
    load, nowhere = Workload("calls", 64, on="file"), place.Place(Path("/nowhere"), Path("/x"), 1)
    for counting, words in (
        (lambda *_: 12.0, "by callgrind, in user space only"),
        (fail, "not counted: the CPU's counter is refused (No such device); valgrind is no good"),
    ):
        monkeypatch.setattr(calls, "_counted_by_callgrind", counting)
        sample = calls.measure(nowhere, load, TCP, 0.1)
        assert sample.value == 50
        assert sample.counting is not None and words in sample.counting


def fail(*_: object) -> float:
    raise BenchError("valgrind is no good")


def test_starts_are_measured_with_the_library_and_without_it() -> None:
    report = session.run(
        session.plan(quick=True, only=["start"], rounds=1, seconds=0.01), lambda _done, _what: None
    )
    assert not report.incomplete()
    assert "1 of 1 measurements a program ran under loopfuse" in " ".join(report.proof().split())
    assert [cell.side for cell in report.rows[0].cells] == ["tcp", "loopfuse"]


@pytest.mark.parametrize(
    ("id", "connections"), [("asyncio", 10), ("threads", 10), ("memcached", 1), ("nginx-1", 1)]
)
def test_a_program_is_measured_over_tcp_over_a_unix_socket_and_fused(
    id: str, connections: int
) -> None:
    programs = [program for program in PROGRAMS if program.id == id]
    for name in set(programs[0].needs) - {sys.executable}:
        tool(name)
    report = session.run(session.Plan((), programs, 1, 0.1), lambda _done, _what: None)
    assert report.left_out[-1].name == "eBPF sockmap", report.left_out
    assert [c.side for c in report.rows[0].cells] == ["tcp", "unix", "loopfuse"]
    assert not report.incomplete()
    assert [p.fused for p in samples(report.rows, fused=True)] == [connections]


def test_figures_of_what_was_not_fused_are_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a library that does nothing."""
    library = tmp_path / "libnothing.so"
    command = ["gcc", "-shared", "-o", str(library), "-x", "c", os.devnull]
    subprocess.run(command, check=True)
    monkeypatch.setenv("LOOPFUSE_LIBRARY", str(library))
    monkeypatch.setattr(proof, "_SECONDS", 0.1)
    plan = session.plan(quick=True, only=["roundtrip"], rounds=1, seconds=0.01)
    report = session.run(session.Plan(plan.loads[:1], (), 1, 0.01), lambda _done, _what: None)
    cell = report.rows[0].cell("loopfuse")
    assert cell is not None and cell.value is None
    assert "not fused" in report.unproven()[0]
    assert "0 of 1 measurements of loopfuse were fused" in report.proof()


def test_a_program_that_does_not_start_costs_only_its_own_figures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = children.Child.__init__

    def fail_with_unix(
        self: children.Child, command: list[str], *args: object, **kw: object
    ) -> None:
        broken = [word.replace("over=unix", "over=pigeon") for word in command]
        real(self, broken, *args, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(children.Child, "__init__", fail_with_unix)
    plan = session.plan(quick=True, only=["rate"], rounds=1, seconds=0.01)
    report = session.run(plan, lambda _done, _what: None)
    assert set(report.incomplete()) == {
        f"{row.title}, {side}" for row in report.rows for side in ("unix", "unix-poll")
    }
    assert "'pigeon' is unknown here" in next(iter(report.incomplete().values()))


def test_more_connections_than_descriptors_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.resource, "getrlimit", lambda _: (256, 256))
    monkeypatch.setattr(running, "_SPARE_DESCRIPTORS", 100)
    assert "256" in (running.obstacle(Workload("many", 64, 100, 1)) or "")
    assert running.obstacle(Workload("roundtrip", 1)) is None
    plan = session.plan(quick=False, only=["many"], rounds=1, seconds=1)
    assert max(load.connections for load in plan.loads) == running.most_connections() == 50
    assert [fact.name for fact in plan.left_out] == ["10,000 connections"]
    assert "256 (ulimit -Hn): 50 take their place" in plan.left_out[0].value


@pytest.mark.parametrize("root", [True, False])
def test_the_limit_of_descriptors_is_raised_where_that_is_allowed(
    root: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(1024, 20000)]

    def setrlimit(_which: int, wanted: tuple[int, int]) -> None:
        if not root:
            raise ValueError("not allowed to raise maximum limit")
        limits.append(wanted)

    monkeypatch.setattr(running.resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(running.resource, "setrlimit", setrlimit)
    running.allow_connections(5000)
    assert len(limits) == 1
    running.allow_connections(10000)
    assert limits[-1] == ((1024, 20500) if root else (1024, 20000))
    assert (running.most_connections() == 10000) == root


def test_a_sockmap_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockmap, "obstacle", lambda: "needs root")
    assert "sockmap" not in {side.key for side in sides_of("roundtrip")}
    report = session.run(session.Plan((), (), 1, 0.01), lambda _done, _what: None)
    assert any(f.name == "eBPF sockmap" and "needs root" in f.value for f in report.left_out)


def test_a_sockmap_gets_around_tcp() -> None:
    """The measuring program itself gives up if the payload went by TCP."""
    if (why := sockmap.obstacle()) is not None:
        pytest.skip(f"eBPF sockmap: {why}")
    plan = session.plan(quick=True, only=["roundtrip"], rounds=1, seconds=0.02)
    report = session.run(session.Plan(plan.loads[:1], (), 1, 0.02), lambda _done, _what: None)
    cell = report.rows[0].cell("sockmap")
    assert cell is not None and cell.value is not None


def test_ended_by_a_signal_it_ends_what_it_started(open_folder: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(open_folder)}
    command = [*LOOPFUSE, "bench", "--only", "roundtrip", "--seconds", "30"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually(
            lambda: len(children_of(process.pid)) >= 3, "broker, server and client run", START
        )
        started = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "they end")
    assert not list(open_folder.iterdir())
