"""What a person asked about: the process of an id, a port, or the programs of a name."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from loopfuse._errors import SubjectError
from loopfuse._paths import is_there
from loopfuse._why.holders import Process
from loopfuse._why.links import End, Link

_MOST_PORT = 65535
_MOST_PID = 1 << 22  # PID_MAX_LIMIT of proc(5)
_MOST_DIGITS = 9


class Subject(NamedTuple):
    """What fits any of these is meant."""

    pid: int | None = None
    port: int | None = None
    program: str | None = None
    """Name, or with a slash path; may hold wildcards."""

    def fits_process(self, process: Process) -> bool:
        if self.pid is not None:
            return process.pid == self.pid
        return self.program is not None and process.is_program(self.program)

    def fits(self, link: Link) -> bool:
        """Does the connection concern it?"""
        return any(self._fits_end(end) for end in link.ends)

    def _fits_end(self, end: End) -> bool:
        if self.port is not None and end.endpoint.port == self.port:
            return True
        return any(self.fits_process(process) for process in end.holders)


def parse_subject(text: str) -> Subject:
    """From the command line: `:PORT` is a port, a number a port or a process, all else a
    program. Raises SubjectError."""
    match = re.fullmatch(r"(:?)(\d+)", text, re.ASCII)
    if match is None:
        if not text.strip() or text.startswith(":"):
            raise SubjectError(
                f"{text!r} is no process, port or program",
                hint="Give the id of a process, a port such as :7000, or the name of a program.",
            )
        # A process goes by the file that its path leads to, as redis-server's to another name.
        is_file = "/" in text and is_there(Path(text))
        return Subject(program=os.path.realpath(text) if is_file else text)
    # int() refuses more digits than sys.get_int_max_str_digits().
    number = int(match[2]) if len(match[2]) <= _MOST_DIGITS else _MOST_PID + 1
    if number > (_MOST_PORT if match[1] else _MOST_PID):
        raise SubjectError(
            f"{text} is no {'port' if match[1] else 'port and no process id'}",
            hint=f"Ports go up to {_MOST_PORT}, process ids to {_MOST_PID}.",
        )
    port = number if number <= _MOST_PORT else None
    return Subject(port=port) if match[1] else Subject(pid=number, port=port)
