"""What comes out: JSON, page, table."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from rich.console import Console

from bench.made_up import FAILED, cell, report, sample
from loopfuse._bench import plots, table
from loopfuse._bench.page import page
from loopfuse._bench.results import UNFUSED, Report


def shown(made: Report) -> str:
    console = Console(file=io.StringIO(), width=200)
    table.show(made, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_json_is_what_the_schema_says() -> None:
    encoded = msgspec.json.encode(report())
    assert msgspec.json.decode(encoded, type=Report) == report()
    with pytest.raises(msgspec.ValidationError, match=r"\$\.rows\[0\]\.better"):
        msgspec.json.decode(encoded.replace(b'"better":"less"', b'"better":"new"'), type=Report)


def test_every_row_has_an_id_of_its_own() -> None:
    ids = [row.id for row in report().rows]
    assert len(set(ids)) == len(ids)


def test_the_table_has_medians_spreads_and_the_gain() -> None:
    said = shown(report())
    assert "20 (10 to 30)" in said
    assert "2 (1 to 3)" in said
    assert "10 x" in said
    assert "fast & <new>" in said
    assert "not found: redis-server" in said


def test_the_report_tells_how_many_measurements_were_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)  # drawing takes a second
    made = report()
    assert not made.unproven() and not made.incomplete()
    rows = [row for row in made.rows if row.kind not in ("rate", *UNFUSED)]
    fused = 3 * sum(cell.is_fused for row in rows for cell in row.cells)
    assert f"{fused} of {fused} measurements of loopfuse were fused" in made.proof()
    row = made.rows[0]
    row.cells = [
        c if c.side != "loopfuse" else cell("loopfuse", sample(1, FAILED)) for c in row.cells
    ]
    assert made.unproven() == [f"{row.title}, loopfuse: {FAILED.words}"]
    assert made.incomplete() == {f"{row.title}, loopfuse": FAILED.words}
    assert FAILED.words in shown(made)
    assert FAILED.words in page(made)


def test_the_page_needs_nothing_else() -> None:
    pytest.importorskip("matplotlib")
    html = page(report())
    assert "<script" not in html and "<link" not in html and "<img" not in html
    assert not re.search(r'(src|href)="(?!#)', html)
    assert html.count("<svg") >= 4
    assert "fast &amp; &lt;new&gt;" in html
    for row in report().rows:
        assert row.title in html


def test_without_matplotlib_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    html = page(report())
    assert "<svg" not in html
    assert "pip install" in html
    assert "20" in html


def test_in_80_columns_every_figure_is_whole_and_in_a_line_of_its_own() -> None:
    made = report()
    console = Console(file=io.StringIO(), width=80)
    table.show(made, console)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert max(map(len, said.splitlines())) <= 80
    titles = {side.key: side.title for side in made.sides}
    for row in made.rows:
        assert f"{row.title} ({row.unit}" in " ".join(said.split())
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert {f"{titles['unix-poll']} 20 (10 to 30) 20 40 2", "loopfuse 2 (1 to 3) 2 4 2 10"} <= set(
        lines
    )
    assert "…" not in said.split("Targets")[0]
