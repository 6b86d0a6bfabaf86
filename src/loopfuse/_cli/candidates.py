"""What a shell can offer for a word that is being typed: asked at each press of the tab key.

Whatever goes wrong here is not worth a message between a person's keystrokes: nothing is offered.
Verbs import this for their declarations, so it imports what it needs only when it is asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def connection_ids(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Ids of fused connections, each with who it connects."""
    from click.shell_completion import CompletionItem

    from loopfuse._control import fetch_rows
    from loopfuse._errors import LoopfuseError
    from loopfuse._runtime_dir import broker_path

    with contextlib.suppress(LoopfuseError):
        return [
            CompletionItem(str(row.id), help=f"{row.client.comm} to {row.server.comm}")
            for row in fetch_rows(broker_path())
            if row.state == "fused" and str(row.id).startswith(incomplete)
        ]
    return []


def running_programs(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of programs that have TCP connections."""
    from click.shell_completion import CompletionItem

    from loopfuse._errors import LoopfuseError
    from loopfuse._runtime_dir import broker_path
    from loopfuse._why.survey import Survey

    names: set[str] = set()
    with contextlib.suppress(LoopfuseError):
        names = Survey(broker_path()).programs()
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def commands(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Programs on PATH for the first word; files for one with a slash, and for all others."""
    from click.shell_completion import CompletionItem

    earlier = context.params.get(parameter.name or "") or ()
    if "/" in incomplete or (parameter.nargs == -1 and earlier):
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name) for name in sorted(set(_on_path(incomplete)))]


def _on_path(start: str) -> Iterator[str]:
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        with contextlib.suppress(OSError):
            for path in Path(folder or ".").iterdir():
                if path.name.startswith(start) and os.access(path, os.X_OK):
                    yield path.name
