"""The C code itself under C11's weak memory: weak/ runs csrc/'s own functions in a simulator that
tries all interleavings and all stores a load may read, within bounds. docs/models.md tells more."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

WEAK = Path(__file__).parent / "weak"
CSRC = WEAK.parents[2] / "csrc"
SUBJECTS = (
    "bell", "conn_count", "conn_end", "conn_fuse", "conn_recv", "conn_resend", "conn_send", "held",
    "wait",
)  # fmt: skip
PATIENCE = 600

# Two unforced switches of thread and one stale load in an execution; three threads: one switch.
SCENARIOS = (
    "stream", "wrap", "reuse", "more", "uncork", "late", "home", "fuse", "end", "back", "turn",
    "stopped", "fin", "last", "moved", "close",
)  # fmt: skip
BOUNDS = (2, 1)
BOUNDS_OF = {"two": (1, 1), "corks": (1, 1), "turn": (2, 2)}
"""Three threads are many; and in "turn" the producer looks twice at a position: both looks have to
be stale."""


def build(directory: Path, *options: str) -> Path:
    common = ["gcc", "-std=gnu11", "-O1", "-w", *options]
    common += [f"-I{WEAK}", "-iquote", str(CSRC), "-c"]
    sources = [CSRC / f"{name}.c" for name in SUBJECTS] + [WEAK / "scenarios.c"]
    for source in sources:
        command = [*common, "-include", str(WEAK / "before.h"), str(source)]
        subprocess.run(command, cwd=directory, check=True, timeout=PATIENCE)
    subprocess.run([*common, str(WEAK / "sim.c")], cwd=directory, check=True, timeout=PATIENCE)
    objects = [str(path) for path in directory.glob("*.o")]
    subprocess.run(["gcc", "-o", "weak", *objects], cwd=directory, check=True, timeout=PATIENCE)
    return directory / "weak"


@pytest.fixture(scope="module")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As compiled for machines whose locked instructions are no full fences."""
    return build(tmp_path_factory.mktemp("portable"))


@pytest.fixture(scope="module")
def x86(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("x86"), "-DSIM_X86")


def explore(checker: Path, scenario: str, bounds: tuple[int, int], *site: str) -> tuple[int, str]:
    """How many executions there were, and what was found."""
    command = [str(checker), scenario, *map(str, bounds), *site]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = re.fullmatch(r"(\d+) executions, (.*)\n", done.stdout)
    assert done.returncode in (0, 1) and said, f"{command}: {done.stdout}{done.stderr}"
    return int(said[1]), said[2]


def holds(
    checker: Path,
    scenario: str,
    bounds: tuple[int, int],
    report: Callable[[str, object], None],
) -> None:
    executions, found = explore(checker, scenario, bounds)
    report("executions", executions)
    assert found == "no fault"
    assert executions > 10


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_order_of_memory_operations_breaks_it(
    portable: Path, scenario: str, record_property: Callable[[str, object], None]
) -> None:
    holds(portable, scenario, BOUNDS_OF.get(scenario, BOUNDS), record_property)


@pytest.mark.parametrize("scenario", ["two", "corks"])
def test_nor_with_a_third_thread(
    portable: Path, scenario: str, record_property: Callable[[str, object], None]
) -> None:
    holds(portable, scenario, BOUNDS_OF[scenario], record_property)


def test_who_ends_its_ring_sends_what_a_peer_that_left_had_not_read(portable: Path) -> None:
    """The peer left long ago, so nothing of it is seen late: no stale loads."""
    _, found = explore(portable, "both", (2, 0))
    assert found == "no fault"


def test_who_leaves_its_ring_leaves_a_copy_for_who_knows_only_tcp(portable: Path) -> None:
    _, found = explore(portable, "handed", (2, 0))
    assert found == "no fault"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_exchange_that_frees_the_lock_is_the_fence_of_x86(
    x86: Path, scenario: str, record_property: Callable[[str, object], None]
) -> None:
    holds(x86, scenario, (1, 1), record_property)


@pytest.mark.soak
@pytest.mark.parametrize("bounds", [(3, 1), (2, 2)], ids=["three-switches", "two-stale"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nor_in_larger_bounds(
    portable: Path,
    scenario: str,
    bounds: tuple[int, int],
    record_property: Callable[[str, object], None],
) -> None:
    holds(portable, scenario, bounds, record_property)


# Function, expression and operation, made relaxed; the scenario that finds it.
MUTATIONS = (
    ("lf_conn_publish", "&sock->out->p.head", "store", "stream"),
    ("lf_held_shown_head", "&p->head", "load", "stream"),
    ("take_from_ring", "&sock->in->t.tail", "store", "wrap"),
    ("room", "&sock->out->t.tail", "load", "reuse"),
    ("position_for", "&sock->out->t.tail", "load", "home"),
    ("lf_lock_fence_released", "", "fence", "stream"),
    ("lf_wait_arm", "", "fence", "stream"),
    ("lf_held_shown_head", "&p->held", "load", "more"),
    ("lf_held_end", "&sock->out->p.held", "store", "more"),
    ("lf_lock_fence_released", "", "fence", "uncork"),
    ("lf_states_tell", "&sock->out->p.mark", "store", "end"),
    ("ring_is_over", "&sock->in->p.mark", "load", "end"),
    ("lf_states_tell", "&sock->out->p.mark", "store", "fuse"),
    ("step_ready", "&sock->in->p.mark", "load", "fuse"),
    ("lf_conn_ask_again", "&sock->in->c.wish", "swap", "turn"),
    ("lf_states_tell", "&sock->out->p.mark", "store", "last"),
    ("take_back_late", "&sock->out->c.wish", "swap", "last"),
    ("has_unread", "&sock->in->p.head", "load", "back"),
    ("lf_conn_enter_plain_tx", "&sock->slot->tx_inside", "add", "two"),
    ("lf_conn_enter_plain_tx", "&sock->slot->tx", "load", "two"),
    ("lf_conn_try_fuse", "&slot->tx_inside", "load", "two"),
    ("lf_lock_acquire", "&lock->word", "swap", "two"),
    ("lf_lock_release", "&lock->word", "exchange", "two"),
)


@pytest.mark.parametrize(
    ("function", "expression", "operation", "scenario"),
    MUTATIONS,
    ids=[f"{m[0]}-{m[2]}" for m in MUTATIONS],
)
def test_a_weaker_order_is_found(
    portable: Path, function: str, expression: str, operation: str, scenario: str
) -> None:
    bounds = BOUNDS_OF.get(scenario, BOUNDS)
    _, found = explore(portable, scenario, bounds, function, expression, operation)
    assert found != "no fault"
