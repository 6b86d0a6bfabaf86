"""``loopfuse ps``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from loopfuse._messages import EndRow, Row


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of objects.")
@click.option("--live", is_flag=True, help="Leave out connections that have closed.")
def command(as_json: bool, live: bool) -> None:
    """List the connections the broker knows: fused or not, and why not.

    Closed ones stay in the list for a minute.
    """
    from loopfuse._control import fetch_rows
    from loopfuse._errors import LoopfuseError, NoBrokerError
    from loopfuse._runtime_dir import broker_path

    rows: list[Row] | None = None
    try:
        rows = fetch_rows(broker_path())
    except NoBrokerError as error:
        if not as_json:
            click.echo(f"{error}: no connection is fused.")
    except LoopfuseError as error:
        raise click.ClickException(str(error)) from error
    if rows is not None and live:
        rows = [row for row in rows if row.state != "closed"]
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(rows or []), indent=2).decode())
    elif rows is not None:
        _print_table(rows)


def _print_table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        click.echo("No connections: none of the programs under `loopfuse run` has a lasting one.")
        return
    # A pipe has no width: whole lines for grep.
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("ID", justify="right", no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    table.add_column("CLIENT", overflow="fold", ratio=1)
    table.add_column("SERVER", overflow="fold", ratio=1)
    table.add_column("SENT", justify="right", no_wrap=True)
    table.add_column("RECEIVED", justify="right", no_wrap=True)
    table.add_column("REASON", overflow="fold")
    for row in rows:
        table.add_row(
            str(row.id),
            Text(row.state, style=_STYLES[row.state]),
            Text(_end(row.client)),
            Text(_end(row.server)),
            _size(row.bytes_to_server),
            _size(row.bytes_to_client),
            row.reason or "",
        )
    console.print(table)
    details: dict[str, list[str]] = {}
    for row in rows:
        if row.detail is not None:
            details.setdefault(f"{row.reason}: {row.detail}", []).append(str(row.id))
    for detail, ids in details.items():
        shown = ", ".join(ids[:_IDS_SHOWN]) + (", ..." if len(ids) > _IDS_SHOWN else "")
        console.print(Text(f"{shown}: {detail}"), soft_wrap=True)


_IDS_SHOWN = 10
_STYLES = {"fused": "green", "plain": "yellow", "defused": "yellow", "closed": "dim"}


def _end(end: EndRow) -> str:
    where = f"[{end.addr}]:{end.port}" if ":" in end.addr else f"{end.addr}:{end.port}"
    if end.pid is None:
        return where
    return f"{end.comm or '?'}/{end.pid} {where}"


def _size(count: int) -> str:
    """Bytes in at most six characters, in powers of 1024."""
    if count < 1024:
        return str(count)
    value = float(count)
    for unit in "KMGTPE":
        value /= 1024
        if value < 1000 or unit == "E":
            break
    return f"{value:.1f}{unit}" if value < 100 else f"{value:.0f}{unit}"
