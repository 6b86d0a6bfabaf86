"""``loopfuse bench``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loopfuse._bench.workloads import KINDS, MOST

if TYPE_CHECKING:
    from loopfuse._bench.results import Report
    from loopfuse._bench.session import Plan


@click.command("bench")
@click.option("--quick", is_flag=True, help="One or two of each kind, in under two minutes.")
@click.option(
    "--json",
    "json_path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all figures to FILE.",
)
@click.option(
    "--html",
    "html_path",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a report to FILE: one page with tables and plots.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Say what a plain round trip is made of, and which part fusing removes; by itself, "
    "nothing else is measured.",
)
@click.option(
    "--only",
    metavar="KIND",
    multiple=True,
    type=click.Choice(KINDS),
    help=f"Leave out all but this kind (may be repeated): {', '.join(KINDS)}.",
)
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(1, 100),
    help="How often each is measured. Default: 5, quick 3.",
)
@click.option(
    "--seconds",
    metavar="S",
    type=click.FloatRange(0.01, 60),
    help="How long a measurement takes. Default: 0.5, quick 0.2.",
)
def command(
    quick: bool,
    json_path: Path | None,
    html_path: Path | None,
    explain: bool,
    only: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
) -> None:
    """Measure what fusing gives on this machine: plain TCP, AF_UNIX and loopfuse in turns.

    Round trips, streams, many connections, connection rate, busy pairs, idle connections,
    memory, calls and starts that have nothing to fuse, and those real programs that are
    installed; at the end, which targets are reached. Needs no privileges; talks to loopback
    only. Some twenty minutes; let the machine do nothing else.

    Exit status: 0 all is well, 1 something has no figure (the report says why); a missed
    target is no error.
    """
    for path in (json_path, html_path):
        _check_writable(path)
    # Whoever ends us ends our servers too.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    from loopfuse._bench import running, session

    running.allow_connections(MOST)
    plan = session.plan(quick=quick, only=only, rounds=rounds, seconds=seconds, explain=explain)
    report = _run(plan)
    _write(report, json_path, html_path)
    if report.unproven() or report.incomplete():
        sys.exit(1)


def _check_writable(path: Path | None) -> None:
    """Now, and not after twenty minutes."""
    if path is None:
        return
    folder, existed = path.absolute().parent, path.exists()
    if not folder.is_dir():
        raise click.UsageError(f"There is no directory {folder} to write {path.name} to.")
    try:
        path.open("ab").close()
    except OSError as error:
        raise click.UsageError(
            f"{path} can't be written: {error.strerror}. Give a FILE in a directory of yours."
        ) from error
    if not existed:
        path.unlink()


def _run(plan: Plan) -> Report:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from loopfuse._bench import session
    from loopfuse._cli.screen import console

    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.completed} of {task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    # On standard error, and not redrawn so often that it would take part in the figures.
    progress = Progress(*columns, console=console(stderr=True), refresh_per_second=2)
    with progress:
        task = progress.add_task("preparing", total=plan.steps)
        report = session.run(
            plan, lambda done, what: progress.update(task, completed=done, description=what)
        )
        progress.update(task, completed=plan.steps, description="done")
    return report


def _write(report: Report, json_path: Path | None, html_path: Path | None) -> None:
    from loopfuse._bench import plots, table
    from loopfuse._cli.screen import console

    screen = console()
    table.show(report, screen)
    for path, what in ((json_path, "figures"), (html_path, "report")):
        if path is None:
            continue
        if what == "figures":
            import msgspec

            text = msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
        else:
            from loopfuse._bench.page import page

            text = page(report)
        path.write_text(text)
        screen.print(f"The {what}: {path}")
    if not plots.available():
        screen.print(plots.WITHOUT, markup=False)
    elif html_path is None:
        screen.print("For plots and all percentiles: --html FILE")
    for words in report.unproven():
        screen.print(f"[red]Thrown away:[/red] {words}")
