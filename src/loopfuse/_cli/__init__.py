"""The command line: one module a verb, imported only when that verb is used."""

from __future__ import annotations

import sys
from importlib import import_module

import click

_VERBS = {
    "bench": "Measure what fusing gives on this machine.",
    "broker": "Run the broker in the foreground.",
    "defuse": "Send connections back to plain TCP.",
    "doctor": "Is everything in place on this machine, and can PROGRAM be fused?",
    "ps": "List the connections the broker knows.",
    "run": "Run PROGRAM with its local TCP connections fused.",
}


class _LazyGroup(click.Group):
    """Knows its verbs by name and first line; loads a module when its verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command = import_module(f"loopfuse._cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="loopfuse")
def cli() -> None:
    """TCP between programs on this host at shared-memory speed.

    Start both programs with `loopfuse run`; whatever they then say to each other over TCP
    goes through shared memory. `loopfuse ps` shows which connections do, and which do not.
    """


def main() -> None:
    """Entry point of the ``loopfuse`` command."""
    from loopfuse._errors import LoopfuseError

    try:
        cli(prog_name="loopfuse")
    except LoopfuseError as error:
        print(f"loopfuse: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
