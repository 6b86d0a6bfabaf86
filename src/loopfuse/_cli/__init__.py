"""The command line: one module a verb, imported only when that verb is used."""

from __future__ import annotations

import sys
from importlib import import_module

import click

_VERBS = {
    "bench": "Measure what fusing gives on this machine.",
    "broker": "Run the broker in the foreground, or ask how it is.",
    "completion": "Print what makes a shell complete loopfuse's commands.",
    "defuse": "Send connections back to plain TCP.",
    "doctor": "Is everything in place on this machine, and can PROGRAM be fused?",
    "ps": "List the connections the broker knows.",
    "run": "Run PROGRAM with its local TCP connections fused.",
    "tap": "Capture what fused connections carry.",
    "top": "Watch connections as they work.",
    "why": "Say why connections are not fused, and what to change.",
}

ENVIRONMENT = {
    "LOOPFUSE_BROKER": "Path of the broker's socket; else it is in XDG_RUNTIME_DIR/loopfuse, or "
    "/tmp/loopfuse-UID, for root in /run/loopfuse.",
    "LOOPFUSE_LIBRARY": "Path of another build of the library to load into programs.",
    "NO_COLOR": "If it is set, no output has colours. Output that is no terminal never has.",
}
"""What the command line heeds, as --help and the manual pages tell it."""

COMPLETION_VARIABLE = "_LOOPFUSE_COMPLETE"


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
        with formatter.section("Environment"):
            formatter.write_dl(list(ENVIRONMENT.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="loopfuse")
def cli() -> None:
    """TCP between programs on this host at shared-memory speed.

    Start both programs with `loopfuse run`; whatever they then say to each other over TCP
    goes through shared memory. `loopfuse ps` shows which connections do, `loopfuse why` why the
    others do not.

    Exit status: 0; 1 if the answer is no, or the broker can't give it; 2 if what was asked for is
    not there or makes no sense. That of `loopfuse run` is the program's.
    """


def main() -> None:
    """Entry point of the ``loopfuse`` command."""
    from loopfuse._errors import LoopfuseError

    try:
        cli(prog_name="loopfuse", complete_var=COMPLETION_VARIABLE)
    except LoopfuseError as error:
        print(f"loopfuse: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
