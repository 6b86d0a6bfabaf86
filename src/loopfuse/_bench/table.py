"""The report on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from loopfuse._bench import judging
from loopfuse._bench.results import Cell, Fact, Report, Row
from loopfuse._bench.statistics import cpu_of, gain, instructions_of, latency_of, median_of
from loopfuse._bench.targets import OURS

_TITLES = {
    "self": "Both ends in one process",
    "explain": "The same between two processes",
    "roundtrip": "Round trips",
    "stream": "Streams",
    "many": "Many connections (64 B each way)",
    "rate": "Connection rate",
    "busy": "More busy programs than CPUs: all of them together",
    "idle": "Idle",
    "memory": "Memory",
    "watching": "What it costs to be watched",
    "calls": "Single calls that have nothing to do with fusing (TCP: without the library)",
    "start": "Start of a program (TCP: without the library)",
    "programs": "Real programs",
}


_NARROW = 120
"""Columns of a terminal below which the sides stand below one another."""


def kinds_of(report: Report) -> list[tuple[str, str, list[Row]]]:
    """Key, title and rows of each part of the report, in order."""
    parts = []
    for kind, title in _TITLES.items():
        rows = [row for row in report.rows if row.kind == kind]
        if rows:
            parts.append((kind, title, rows))
    return parts


def show(report: Report, console: Console) -> None:
    """Prints everything but the percentiles that only the HTML page has room for."""
    titles = {side.key: side.title for side in report.sides}
    for _, title, rows in kinds_of(report):
        if console.width < _NARROW:
            _show_narrow(title, rows, titles, console)
            continue
        console.print(_values(title, rows, titles))
        console.print(_details(title, rows, titles))
    if report.explanation is not None:
        console.print("[bold]What a round trip is made of[/bold]")
        console.print(report.explanation.words, width=min(console.width, 100))
    _facts(console, "Machine", report.machine)
    _facts(console, "Method", report.method)
    _facts(console, "What was seen", [Fact("proof", report.proof())])
    _facts(console, "Left out", report.left_out)
    failed = report.incomplete().items()
    _facts(
        console,
        "Without a figure, or not from all rounds",
        [Fact(name, why) for name, why in failed],
    )
    if report.targets:
        console.print(_targets(report))


def _targets(report: Report) -> Table:
    title = f"Targets: {judging.summary(report.targets)}"
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in judging.COLUMNS:
        table.add_column(column)
    for result in judging.measured(report.targets):
        style = {True: "green", False: "red", None: "dim"}[result.reached]
        *words, verdict = map(escape, result.in_words())
        table.add_row(*words, f"[{style}]{verdict}[/{style}]")
    return table


def _values(title: str, rows: list[Row], titles: dict[str, str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("median (lowest to highest)")
    keys = [key for key in titles if any(row.cell(key) for row in rows)]
    for key in keys:
        table.add_column(titles[key], justify="right")
    table.add_column("loopfuse to TCP", justify="right", style="bold")
    for row in rows:
        cells = [value_in_words(row.cell(key)) for key in keys]
        table.add_row(f"{row.title} [dim]({row.unit})[/dim]", *cells, gain_in_words(row))
    return table


def _show_narrow(title: str, rows: list[Row], titles: dict[str, str], console: Console) -> None:
    """What matters most of both tables, in 80 columns."""
    console.print(f"[bold]{title}[/bold]")
    for row in rows:
        table = Table(
            box=None,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            show_header=row is rows[0],
            header_style="dim",
        )
        table.add_column("", width=17)
        table.add_column("median (lowest to highest)", justify="right", width=33)
        for column, width in (("p50 us", 6), ("p99 us", 6), ("CPU us", 7), ("to TCP", 6)):
            table.add_column(column, justify="right", width=width)
        for cell in row.cells:
            latency = latency_of(cell)
            quantiles = (latency.p50, latency.p99) if latency else (None, None)
            ratio = gain_in_words(row).removesuffix(" x") if cell.side == OURS else ""
            figures = (*map(figure, quantiles), cpu_in_words(cell), ratio)
            style = "bold" if cell.side == OURS else ""
            table.add_row(titles[cell.side], value_in_words(cell), *figures, style=style)
        console.print(f"{escape(row.title)} [dim]({row.unit}; CPU for a {row.work})[/dim]")
        console.print(table)
    console.print()


def _details(title: str, rows: list[Row], titles: dict[str, str]) -> Table:
    table = Table(title=f"{title}: latency, CPU, memory", title_justify="left", title_style="bold")
    for column in ("work", "side"):
        table.add_column(column)
    for column in ("p50 us", "p99 us", "p99.9 us", "client CPU us", "server CPU us"):
        table.add_column(column, justify="right")
    for column in ("broker CPU us", "sleeps", "instructions", "kB"):
        table.add_column(column, justify="right")
    for row in rows:
        what = f"{row.title} [dim](a {row.work})[/dim]"
        for cell in row.cells:
            if cell.value is None:
                continue
            latency = latency_of(cell)
            quantiles = (latency.p50, latency.p99, latency.p999) if latency else (None,) * 3
            names = ("client_cpu", "server_cpu", "broker_cpu", "sleeps")
            others = [median_of(cell, name) for name in names]
            others += [instructions_of(cell), median_of(cell, "memory_kb")]
            table.add_row(
                what,
                titles[cell.side],
                *(figure(value) for value in (*quantiles, *others)),
            )
            what = ""
        table.add_section()
    return table


def figure(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return "-"
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def value_in_words(cell: Cell | None) -> str:
    if cell is None or cell.value is None:
        return "-"
    value = cell.value
    if value.low == value.high:
        return figure(value.median)
    return f"{figure(value.median)} ({figure(value.low)} to {figure(value.high)})"


def gain_in_words(row: Row) -> str:
    """How many times better fused is than plain."""
    plain, fused = row.cell("tcp"), row.cell("loopfuse")
    ratio = gain(plain.value, fused.value, row.better) if plain and fused else None
    return "-" if ratio is None else f"{figure(ratio)} x"


def cpu_in_words(cell: Cell) -> str:
    return figure(cpu_of(cell))


def _facts(console: Console, title: str, facts: list[Fact]) -> None:
    if not facts:
        return
    console.print(f"[bold]{title}[/bold]")
    grid = Table.grid(padding=(0, 2))
    for fact in facts:
        grid.add_row(f"  {escape(fact.name)}", escape(fact.value))
    console.print(grid)
