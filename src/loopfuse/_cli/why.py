"""``loopfuse why``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loopfuse._cli.candidates import running_programs

if TYPE_CHECKING:
    from loopfuse._listings import Cause, WhyRow


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list (docs/json.md).")
@click.argument(
    "subject", required=False, metavar="[PID|PORT|PROGRAM]", shell_complete=running_programs
)
def command(as_json: bool, subject: str | None) -> None:
    """Say of TCP connections whether they are fused, and if not, what to change.

    Also of those that the broker never heard of. Without an argument: of all of yours (root:
    everybody's). A number is the id of a process or a port; :PORT is a port only. PROGRAM is a
    name or a path, and may have wildcards: 'redis-*'.

    Exit status: 0, or 2 if nothing on this host is what was asked about.
    """
    from loopfuse._cli.screen import print_json
    from loopfuse._errors import LoopfuseError, SubjectError
    from loopfuse._runtime_dir import broker_path
    from loopfuse._why.subject import parse_subject
    from loopfuse._why.survey import Survey

    try:
        wanted = None if subject is None else parse_subject(subject)
        rows, note = Survey(broker_path()).look(wanted)
    except SubjectError as error:
        raise click.UsageError(str(error)) from error
    except LoopfuseError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(rows)
    elif rows:
        _print(rows)
    if note is not None:
        click.echo(note, err=as_json)


def _print(rows: list[WhyRow]) -> None:
    groups: dict[tuple[str, tuple[Cause, ...]], list[WhyRow]] = {}
    for row in rows:
        groups.setdefault((row.state, tuple(row.causes)), []).append(row)
    # What is fine first, then by how much there is to gain from a change.
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] != "fused", -len(item[1])))
    for number, ((state, causes), members) in enumerate(ordered):
        if number:
            click.echo()
        _print_group(state, causes, members)


_STYLES = {"fused": "green", "plain": "yellow", "defused": "yellow"}
_TITLES = {
    "fused": "fused: payload goes through shared memory",
    "plain": "plain TCP",
    "defused": "plain TCP again, after it was fused",
}


def _print_group(state: str, causes: tuple[Cause, ...], rows: list[WhyRow]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    from loopfuse._cli.screen import console

    screen = console()
    wraps = screen.is_terminal
    title = Text(_TITLES[state], style=_STYLES[state])
    title.append(": " + ", ".join(_code(cause) for cause in causes) if causes else "")
    screen.print(title, soft_wrap=not wraps)
    for line in (line for cause in causes for line in _advice(cause)):
        if wraps:
            screen.print(Padding(Text(line), (0, 0, 0, 2)))
        else:
            screen.print(Text(f"  {line}"), soft_wrap=True)
    if not wraps:
        for row in rows:
            screen.print(Text("  " + "  ".join(_cells(row))), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True, min_width=4)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    screen.print(table)


def _code(cause: Cause) -> str:
    return f"{cause.code} ({cause.end})" if cause.end else cause.code


def _advice(cause: Cause) -> list[str]:
    lines = [cause.words, f"-> {cause.what_to_change}"]
    return lines if cause.detail is None else [*lines, f"   {cause.detail}"]


def _cells(row: WhyRow) -> tuple[str, str, str, str]:
    from loopfuse._cli.screen import describe_end

    number = "-" if row.id is None else str(row.id)
    return number, describe_end(row.client), "->", describe_end(row.server)
