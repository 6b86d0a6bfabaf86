"""Lines for a pipe, or a terminal without a full screen: one block for each interval."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from loopfuse._top.ordering import Sort, arrange
from loopfuse._top.source import Source
from loopfuse._top.watching import View
from loopfuse._top.wording import heading, line_text, summary

_LONGEST_NAP = 0.5
"""Seconds of one sleep. A signal that comes between Python's last look for signals and the
system call is seen when the call has returned."""


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
        _sleep(source.pause(delay))
        view = source.look()
        if view.fresh:  # the broker is a new one
            _sleep(source.pause(delay))
            view = source.look()
        if done:
            write("")
        for line in block(view, choice):
            write(line)
        done += 1


def _sleep(seconds: float) -> None:
    """Ctrl-C is heard within `_LONGEST_NAP`."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _LONGEST_NAP))
