"""``loopfuse doctor``."""

from __future__ import annotations

import sys

import click

from loopfuse._cli.candidates import commands

_MARKS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list (docs/json.md).")
@click.argument("program", required=False, shell_complete=commands)
def command(as_json: bool, program: str | None) -> None:
    """Is everything in place on this machine, and can PROGRAM be fused?

    Exit status: 0 all is well (warnings allowed), 1 something fails, 2 PROGRAM is unknown.
    """
    from loopfuse._doctor import examine_machine, examine_program
    from loopfuse._errors import LoopfuseError
    from loopfuse._listings import Verdict

    findings = []
    if program is not None:
        try:
            findings.append(examine_program(program))
        except LoopfuseError as error:
            raise click.UsageError(str(error)) from error
    findings.extend(examine_machine())
    if as_json:
        from loopfuse._cli.screen import print_json

        print_json(findings)
    else:
        from rich.markup import escape
        from rich.table import Table

        from loopfuse._cli.screen import console

        table = Table(box=None, pad_edge=False)
        for column in ("check", "", "seen"):
            table.add_column(column)
        for f in findings:
            seen = escape(f.seen) + (f"\n[dim]-> {escape(f.advice)}[/dim]" if f.advice else "")
            style = _MARKS[f.verdict.value]
            table.add_row(f.check, f"[{style}]{f.verdict.value}[/{style}]", seen)
        console().print(table)
    sys.exit(1 if any(f.verdict is Verdict.FAIL for f in findings) else 0)
