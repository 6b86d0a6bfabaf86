"""The broker's log: lines for a person, on standard error, never payload.

Bounded: whoever makes the broker complain must not fill a disk with it.
"""

from __future__ import annotations

import sys
import time

LEVELS = ("debug", "info", "warning", "error")
_LINES_A_MINUTE = 200


class Log:
    """Writes what is at least as grave as `level`, at most some lines a minute."""

    def __init__(self, level: str = "warning") -> None:
        self._least = LEVELS.index(level)
        self._minute = 0
        self._lines = 0

    def debug(self, text: str) -> None:
        self._write(0, text)

    def info(self, text: str) -> None:
        self._write(1, text)

    def warning(self, text: str) -> None:
        self._write(2, text)

    def error(self, text: str) -> None:
        self._write(3, text)

    def _write(self, level: int, text: str) -> None:
        if level < self._least:
            return
        now = time.time()
        if int(now) // 60 != self._minute:
            self._minute = int(now) // 60
            self._lines = 0
        self._lines += 1
        if self._lines > _LINES_A_MINUTE:
            return
        if self._lines == _LINES_A_MINUTE:
            text = "too many lines; silent until the next minute"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        try:
            sys.stderr.write(f"{stamp} {LEVELS[level]}: {text}\n")
            sys.stderr.flush()
        except OSError:
            pass  # a full disk or a closed terminal is no reason to stop pairing
