"""How the command line writes to whoever reads it: a person at a terminal, or a pipe.

At a terminal: its width, and colours, unless NO_COLOR (https://no-color.org) is set. In a pipe:
no colours, and whole lines however long, for grep. Imports rich, so verbs import it late.
"""

from __future__ import annotations

import os
import sys

import msgspec
from rich.console import Console

from loopfuse._messages import EndRow, where

_PIPE_WIDTH = 200


def console(*, stderr: bool = False) -> Console:
    """A console for standard output, or for standard error."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    # Not rich's own way: with NO_COLOR it leaves out colours, but still writes bold and dim.
    plain = bool(os.environ.get("NO_COLOR")) or not terminal
    return Console(
        stderr=stderr,
        width=None if terminal else _PIPE_WIDTH,
        color_system=None if plain else "auto",
        highlight=False,
    )


def print_json(listing: object) -> None:
    """Prints a listing of `loopfuse._listings`."""
    print(msgspec.json.format(msgspec.json.encode(listing), indent=2).decode())


def describe_end(end: EndRow) -> str:
    """An end of a connection: who, and where."""
    return where(end) if end.pid is None else f"{end.comm or '?'}/{end.pid} {where(end)}"
