"""``loopfuse defuse``."""

from __future__ import annotations

import sys

import click

_WORDS = {
    "defused": "goes back to TCP, each end with its next send",
    "already": "is not fused (any more); nothing to do",
    "not-found": "is not known; see `loopfuse ps`",
    "not-permitted": "belongs to another user",
}
_FAILURES = ("not-found", "not-permitted")


@click.command()
@click.argument("ids", metavar="ID...", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every connection that you may defuse.")
def command(ids: tuple[int, ...], everything: bool) -> None:
    """Send fused connections back to plain TCP, for good. Nothing is lost on the way.

    ID is what `loopfuse ps` shows.
    """
    from loopfuse._control import order_defuse
    from loopfuse._errors import LoopfuseError, NoBrokerError
    from loopfuse._runtime_dir import broker_path

    if bool(ids) == everything:
        raise click.UsageError("Give the IDs of connections, or --all.")
    try:
        answers = order_defuse(broker_path(), None if everything else list(ids))
    except NoBrokerError as error:
        if not everything:
            raise click.UsageError(f"{error}, so no connection has an ID.") from error
        click.echo(f"{error}: no connection is fused.")
        return
    except LoopfuseError as error:
        raise click.ClickException(str(error)) from error
    for answer in answers:
        failed = answer.result in _FAILURES
        click.echo(f"connection {answer.id} {_WORDS[answer.result]}", err=failed)
    if everything and not answers:
        click.echo("No connection is fused.")
    if any(answer.result in _FAILURES for answer in answers):
        sys.exit(2)
