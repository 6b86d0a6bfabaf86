"""However an end goes, the other one sees what it would have seen on plain TCP.

docs/semantics/teardown.md lists the outcomes; `python -m teardown.table` measures them.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from teardown.cells import CELLS, Cell
from teardown.measure import Measurement, Outcome
from teardown.table import REASONS, Row, read

TABLE = read()
TRIES = 3
"""To act a cell out, on a machine that is too busy for it."""


@cache
def measured(library: Path | None, eager: bool) -> dict[Cell, Outcome]:
    """All cells at once, side by side: one by one they would take minutes."""
    return Measurement(library, eager=eager).outcomes(CELLS)


@cache
def measured_alone(library: Path | None, eager: bool, cell: Cell) -> Outcome:
    for _ in range(TRIES):
        outcome = Measurement(library, eager=eager).outcomes([cell])[cell]
        if not outcome.failed:
            break
    return outcome


def outcome_of(cell: Cell, row: Row, library: Path | None, eager: bool) -> Outcome:
    outcome = measured(library, eager)[cell]
    allowed = row.allows_fused if library else row.allows_plain
    fused = outcome.fused or library is None
    if outcome.failed or not fused or not allowed(outcome.said):
        # A busy machine may have let it miss its moment.
        outcome = measured_alone(library, eager, cell)
    if outcome.failed:
        if os.environ.get("CI") or os.getuid() == 0:
            pytest.fail(outcome.failed)
        pytest.skip(f"needs root: {outcome.failed}")
    return outcome


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_plain_tcp_does_what_the_table_says(cell: Cell) -> None:
    row = TABLE[cell]
    assert outcome_of(cell, row, None, False).said in row.plain


@pytest.mark.parametrize("cell", CELLS, ids=str)
@pytest.mark.parametrize("pairing", ["lazy", "eager"])
def test_the_other_end_sees_the_same(pairing: str, cell: Cell, library: Path) -> None:
    row = TABLE[cell]
    outcome = outcome_of(cell, row, library, pairing == "eager")
    assert outcome.fused, "it was never fused"
    assert outcome.said in row.plain + row.fused


def test_only_what_has_a_reason_differs() -> None:
    assert set(TABLE) == set(CELLS)
    assert {cell for cell, row in TABLE.items() if row.fused} <= set(REASONS)
