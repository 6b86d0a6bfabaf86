"""The broker's log: lines for a person, never payload.

Two things must not happen, whatever clients do. It must not fill a disk: each line has a bounded
length, and there are only so many of them, at once and in the long run; what was left out is
counted, and told with the next line. Warnings and errors have an allowance of their own, so that a
storm of connections can't hide them. And it must not hold the broker up: where nobody reads (a full
pipe, a terminal that is stopped) lines are left out as well.
"""

from __future__ import annotations

import os
import select
import time

from loopfuse._errors import BrokerError

LEVELS = ("debug", "info", "warning", "error")
LONGEST_LINE = 400
"""Bytes, the end of the line included."""
_STDOUT, _STDERR = 1, 2
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK


class Allowance:
    """So many lines at once, and so many a second in the long run."""

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = burst
        self._rate = rate
        self._left = float(burst)
        self._at = time.monotonic()

    def take(self, now: float) -> bool:
        """Takes one line's worth, if there is one; `now` is time.monotonic()."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Log:
    """Writes what is at least as grave as `level`, within its allowances.

    `target` is a file's path, "-" for standard output, None for standard error. Raises
    BrokerError if the file can't be opened.
    """

    def __init__(self, level: str = "warning", target: str | None = None) -> None:
        self._least = LEVELS.index(level)
        self._target = target
        self._fd = self._open()
        # In the long run 43,200 and 8,640 lines a day: 21 MB if each is of the greatest length.
        self._routine = Allowance(600, 0.5)
        self._grave = Allowance(100, 0.1)
        self._left_out = 0

    def takes(self, level: str) -> bool:
        """Is a line of this level written at all? Saves making one that is not."""
        return LEVELS.index(level) >= self._least

    def debug(self, text: str) -> None:
        self._write(0, text)

    def info(self, text: str) -> None:
        self._write(1, text)

    def warning(self, text: str) -> None:
        self._write(2, text)

    def error(self, text: str) -> None:
        self._write(3, text)

    def reopen(self) -> None:
        """Goes on in a new file of the same path: the old one has been moved away."""
        if self._target in (None, "-"):
            return
        try:
            new = self._open()
        except BrokerError as error:
            self.error(error.message)
            return
        self.close()
        self._fd = new

    def close(self) -> None:
        """Standard output and error stay open; they are the process's."""
        if self._target not in (None, "-"):
            os.close(self._fd)

    def _open(self) -> int:
        if self._target is None:
            return _STDERR
        if self._target == "-":
            return _STDOUT
        try:
            return os.open(self._target, _FLAGS, 0o600)
        except OSError as error:
            raise BrokerError(
                f"the log file {self._target or repr('')} can't be written: {error.strerror}",
                hint="Name a file in a directory that is there and that you can write.",
            ) from error

    def _write(self, level: int, text: str) -> None:
        if level < self._least:
            return
        allowance = self._grave if level >= LEVELS.index("warning") else self._routine
        if not (allowance.take(time.monotonic()) and self._is_taken()):
            self._left_out += 1
            return
        if self._left_out:
            text = f"({self._left_out} lines left out before this one) {text}"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f"{stamp} {LEVELS[level]}: {text}"
        # Programs choose their names, and a name must not make a line.
        line = "".join(letter if letter.isprintable() else "?" for letter in line)
        try:
            os.write(self._fd, line.encode(errors="replace")[: LONGEST_LINE - 1] + b"\n")
            self._left_out = 0
        except OSError:
            self._left_out += 1  # a full disk or a closed terminal is no reason to stop pairing

    def _is_taken(self) -> bool:
        """Would a line be taken at once? A pipe says so while it has room for a page."""
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        try:
            return bool(poll.poll(0))
        except OSError:
            return False
