"""Asking the broker, again and again, also while there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from loopfuse._control import Conversation
from loopfuse._errors import BrokerError, NoBrokerError
from loopfuse._messages import Row
from loopfuse._top.watching import Line, View, Watch

_SHARE = 50
"""Asking takes at most this part of the time: a broker with very many connections is not kept
from its work."""


class Source:
    """Looks at one broker; `fetch` is for tests."""

    def __init__(self, path: Path, fetch: Callable[[], list[Row]] | None = None) -> None:
        self.path = path
        conversation = Conversation(path)
        self._fetch = fetch or (lambda: conversation.fetch_rows(counters=True))
        self._watch = Watch()
        self._lines: list[Line] = []
        self._took = 0.0

    def look(self) -> View:
        """Waits for the broker's answer, 5 s at most."""
        clock = time.strftime("%H:%M:%S")
        start = time.monotonic()
        try:
            rows = self._fetch()
        except NoBrokerError as error:
            self._watch.forget()
            return View(self._lines, clock, f"{error}; waiting for one", False)
        except BrokerError as error:
            self._watch.forget()
            return View(self._lines, clock, str(error), False)
        end = time.monotonic()
        self._took = end - start
        self._lines = self._watch.look(rows, end)
        return View(self._lines, clock, None, self._watch.interval is None)

    def pause(self, wanted: float) -> float:
        """Seconds until the next look, if `wanted` is what the user asked for."""
        return max(wanted, self._took * _SHARE)
