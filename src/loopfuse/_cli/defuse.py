"""``loopfuse defuse``."""

from __future__ import annotations

import sys

import click

from loopfuse._cli.candidates import connection_ids

_WORDS = {
    "defused": "goes back to TCP, each end with its next send",
    "already": "is not fused (any more); nothing to do",
    "not-found": "is not known; see `loopfuse ps`",
    "not-permitted": "belongs to another user",
}
_FAILURES = ("not-found", "not-permitted")


@click.command()
@click.argument("ids", metavar="ID...", type=int, nargs=-1, shell_complete=connection_ids)
@click.option("--all", "everything", is_flag=True, help="Every connection that you may defuse.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list (docs/json.md).")
def command(ids: tuple[int, ...], everything: bool, as_json: bool) -> None:
    """Send fused connections back to plain TCP, for good. Nothing is lost on the way.

    ID is what `loopfuse ps` and `loopfuse why` show.

    Exit status: 0, or 2 if a connection is not known or belongs to somebody else.
    """
    from loopfuse._control import order_defuse
    from loopfuse._errors import LoopfuseError, NoBrokerError
    from loopfuse._messages import DefuseAnswer
    from loopfuse._runtime_dir import broker_path

    if bool(ids) == everything:
        raise click.UsageError("Give the IDs of connections, or --all.")
    answers: list[DefuseAnswer] = []
    nothing = "No connection is fused."
    try:
        answers = order_defuse(broker_path(), None if everything else list(ids))
    except NoBrokerError as error:
        if not everything:
            raise click.UsageError(f"{error}, so no connection has an ID.") from error
        nothing = f"{error}: no connection is fused."
    except LoopfuseError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        from loopfuse._cli.screen import print_json

        print_json(answers)
    else:
        for answer in answers:
            click.echo(
                f"connection {answer.id} {_WORDS[answer.result]}", err=answer.result in _FAILURES
            )
        if not answers:
            click.echo(nothing)
    if any(answer.result in _FAILURES for answer in answers):
        sys.exit(2)
