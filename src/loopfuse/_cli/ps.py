"""``loopfuse ps``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from loopfuse._quantities import size

if TYPE_CHECKING:
    from rich.table import Table

    from loopfuse._messages import Row


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list (docs/json.md).")
@click.option("--live", is_flag=True, help="Leave out connections that have closed.")
def command(as_json: bool, live: bool) -> None:
    """List the connections the broker knows: fused or not, and why not.

    Closed ones stay in the list for a minute. `loopfuse why` also tells of those that the broker
    never heard of.

    Exit status: 0, also without a broker; 1 if it does not answer as it should.
    """
    from loopfuse._control import fetch_rows
    from loopfuse._errors import LoopfuseError, NoBrokerError
    from loopfuse._runtime_dir import broker_path

    rows: list[Row] | None = None
    try:
        rows = fetch_rows(broker_path(), counters=as_json)
    except NoBrokerError as error:
        if not as_json:
            click.echo(f"{error}: no connection is fused.")
    except LoopfuseError as error:
        raise click.ClickException(str(error)) from error
    if rows is not None and live:
        rows = [row for row in rows if row.state != "closed"]
    if as_json:
        from loopfuse._cli.screen import print_json

        print_json(rows or [])
    elif rows is not None:
        _print_table(rows)


def _print_table(rows: list[Row]) -> None:
    from rich.text import Text

    from loopfuse._cli.screen import console

    if not rows:
        click.echo("No connections: none of the programs under `loopfuse run` has a lasting one.")
        return
    screen = console()
    unbound = screen.options.update(max_width=_NO_LIMIT)
    for folded, with_reasons in ((False, True), (True, True), (True, False)):
        table = _table(rows, folded, with_reasons)
        if screen.measure(table, options=unbound).maximum <= screen.width:
            break
    screen.print(table)
    remarks: dict[str, list[str]] = {}
    for row in rows:
        if row.detail is not None:
            remarks.setdefault(f"{row.reason}: {row.detail}", []).append(str(row.id))
        elif row.reason is not None and not with_reasons:
            remarks.setdefault(row.reason, []).append(str(row.id))
    for remark, ids in remarks.items():
        shown = ", ".join(ids[:_IDS_SHOWN]) + (", ..." if len(ids) > _IDS_SHOWN else "")
        screen.print(Text(f"{shown}: {remark}"), soft_wrap=True)


def _table(rows: list[Row], folded: bool, with_reasons: bool) -> Table:
    """`folded`: the ends of a connection take two lines, names and addresses stay whole."""
    from rich.table import Table
    from rich.text import Text

    from loopfuse._cli.screen import describe_end

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ID", justify="right", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    for title, ends in (
        ("CLIENT", [row.client for row in rows]),
        ("SERVER", [row.server for row in rows]),
    ):
        longest = max(len(word) for end in ends for word in describe_end(end).split())
        table.add_column(title, overflow="fold", width=longest if folded else None)
    table.add_column("SENT", justify="right", no_wrap=True)
    table.add_column("RECEIVED", justify="right", no_wrap=True)
    if with_reasons:
        table.add_column("REASON", no_wrap=True)
    for row in rows:
        cells: list[str | Text] = [
            str(row.id),
            Text(row.state, style=_STYLES[row.state]),
            Text(describe_end(row.client)),
            Text(describe_end(row.server)),
            size(row.bytes_to_server),
            size(row.bytes_to_client),
        ]
        table.add_row(*cells, *([row.reason or ""] if with_reasons else []))
    return table


_IDS_SHOWN, _NO_LIMIT = 10, 10_000
_STYLES = {"fused": "green", "plain": "yellow", "defused": "yellow", "closed": "dim"}
