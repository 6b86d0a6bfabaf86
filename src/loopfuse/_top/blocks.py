"""Lines for a pipe, or a terminal without a full screen: one block for each interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from loopfuse._top.ordering import Sort, arrange
from loopfuse._top.source import Source
from loopfuse._top.watching import View
from loopfuse._top.wording import heading, line_text, summary


class Choice(NamedTuple):
    """What to show, as the command line has it."""

    sort: Sort
    text: str
    pairs: bool
    most: int
    """Lines of a block at most, 0: all."""


def block(view: View, choice: Choice) -> list[str]:
    """One block."""
    lines = arrange(view.lines, choice.sort, choice.text, pairs=choice.pairs)
    shown = lines[: choice.most or None]
    text = [*summary(view), heading(pairs=choice.pairs)]
    text += [line_text(line, pairs=choice.pairs) for line in shown]
    if len(shown) < len(lines):
        text.append(f"({len(lines) - len(shown)} more)")
    return text


def show(
    source: Source, choice: Choice, delay: float, count: int | None, write: Callable[[str], None]
) -> None:
    """Writes `count` blocks (None: for ever), each after an interval."""
    source.look()
    done = 0
    while count is None or done < count:
        time.sleep(source.pause(delay))
        view = source.look()
        if view.fresh:  # the broker is a new one
            time.sleep(source.pause(delay))
            view = source.look()
        if done:
            write("")
        for line in block(view, choice):
            write(line)
        done += 1
