"""The promise, for programs nobody thought of: plain and fused, the same transcript."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from differential.differ import Differ
from differential.found import FOUND
from differential.pair import Pair
from differential.strategies import Program, programs
from loopfuse._preload import library_path
from sanitizers import loading_of
from sessions import Session

PROGRAMS, SEED = 150, 1
FINDINGS = 3
"""After so many a hunt ends."""
FLOOR = 0.4
"""So large a part of the programs must have been fused: some ask for what can't be."""

_SETTINGS = settings(
    deadline=None,
    database=None,
    print_blob=False,
    phases=[Phase.generate],  # the differ reduces what it finds itself, and faster
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def differ(
    plain: Session,
    lazily_fused: Session,
    eagerly_fused: Session,
) -> Iterator[Differ]:
    # Pairing after a few calls, so that programs as short as these get to it; and a first
    # send must not wait a second for a party that waits for its turn.
    lazily_fused.environment["LOOPFUSE_AFTER"] = "3"
    eagerly_fused.environment["LOOPFUSE_EAGER_WAIT_MS"] = "5"
    with Pair(plain) as alone, Pair(lazily_fused) as lazy, Pair(eagerly_fused) as eager:
        yield Differ(alone, {"lazy": lazy, "eager": eager})


def _conclude(differ: Differ) -> None:
    counts = differ.counts
    print(", ".join(f"{name}: {count}" for name, count in sorted(counts.items())))
    assert counts["fused"] >= FLOOR * counts["programs"], counts


def _run(differ: Differ, count: int, start: int) -> None:
    """Not one assertion a program: hypothesis would run a failing one again and again."""
    found = []
    no_signals = loading_of(library_path()).keeps_signals_back

    @seed(start)
    @settings(_SETTINGS, max_examples=count)
    @given(programs)
    def agree(program: Program) -> None:
        if no_signals:
            program = program.without("signal")
        difference = differ.difference(program) if len(found) < FINDINGS else None
        if difference and difference not in found:
            found.append(difference)
            print(difference, flush=True)  # a hunt may go on for an hour

    agree()
    assert not found, "plain and fused differ\n" + "\n".join(found)
    _conclude(differ)


@pytest.mark.timeout(600)
def test_programs_of_a_fixed_seed_agree(differ: Differ) -> None:
    _run(differ, PROGRAMS, SEED)


@pytest.mark.parametrize("what", FOUND)
def test_what_a_hunt_has_found(differ: Differ, what: str) -> None:
    # One is sent back to TCP before it is fused: paired is all that it ever was.
    # Or it carries nothing while it is.
    to_fuse = FOUND[what].defuse_at is None and FOUND[what].pairing == "ping"
    for _ in range(3):  # on a busy machine plain TCP may be of two minds, and pairing late
        difference = differ.difference(FOUND[what])
        assert difference is None, f"plain and fused differ\n{difference}"
        if differ.counts["fused"] or not to_fuse:
            break
    assert not to_fuse or differ.counts["fused"]


def test_program(differ: Differ, request: pytest.FixtureRequest) -> None:
    written = request.config.getoption("--program")
    if not written:
        pytest.skip("run it with --program 'Program(...)', as a hunt prints it")
    program = eval(written, {"Program": Program})  # from whoever runs these tests
    difference = differ.difference(program)
    assert difference is None, f"plain and fused differ\n{difference}"


@pytest.mark.timeout(0)
def test_hunt(differ: Differ, request: pytest.FixtureRequest) -> None:
    count = request.config.getoption("--hunt")
    if not count:
        pytest.skip("run it with --hunt N")
    start = request.config.getoption("--hunt-seed") or random.randrange(1 << 32)
    print(f"seed {start}: repeat with --hunt {count} --hunt-seed {start}")
    _run(differ, count, start)
