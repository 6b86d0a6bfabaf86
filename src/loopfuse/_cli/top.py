"""``loopfuse top``."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.util import find_spec

import click

from loopfuse._top.ordering import SORT_NAMES

_PRIORITY = 5


@click.command()
@click.option(
    "-d",
    "--delay",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    help="How long to wait between two looks.",
)
@click.option(
    "-n",
    "--count",
    metavar="COUNT",
    type=click.IntRange(min=1),
    help="Stop after so many intervals.",
)
@click.option(
    "-s",
    "--sort",
    "sort",
    type=click.Choice(SORT_NAMES),
    default="rate",
    show_default=True,
    help="What comes first.",
)
@click.option(
    "-f", "--filter", "text", metavar="TEXT", default="", help="Only what has TEXT in it."
)
@click.option("-p", "--pairs", is_flag=True, help="One line for each two programs.")
@click.option(
    "-l",
    "--lines",
    metavar="N",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="In a pipe: lines of a block at most; 0: all.",
)
@click.option("--plain", is_flag=True, help="Lines as in a pipe, also in a terminal.")
def command(
    delay: float, count: int | None, sort: str, text: str, pairs: bool, lines: int, plain: bool
) -> None:
    """Watch connections: by rate, with messages, wake-ups, ring fill, who sleeps, who spins.

    Full screen in a terminal (keys are shown at the bottom); in a pipe, one block of lines for
    each interval. Goes on while the broker is away.

    Exit status: 0, also when whoever reads the lines leaves first; 130 if Ctrl-C ended them.
    """
    from loopfuse._runtime_dir import broker_path
    from loopfuse._top import blocks
    from loopfuse._top.ordering import sort_named
    from loopfuse._top.source import Source

    # It gives way to what it watches.
    with contextlib.suppress(OSError):
        os.nice(_PRIORITY)
    source = Source(broker_path())
    if not plain and _is_terminal():
        if find_spec("textual") is not None:
            from loopfuse._top.screen import Top

            Top(source, sort_named(sort), text, pairs=pairs, delay=delay, count=count).run()
            return
        click.echo("For a full screen: pip install 'loopfuse[top]'", err=True)
    choice = blocks.Choice(sort_named(sort), text, pairs, lines)
    try:
        blocks.show(source, choice, delay, count, _write)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read has enough; Python is not to complain of it when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _write(line: str) -> None:
    print(line, flush=True)
