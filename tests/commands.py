"""The `loopfuse` command, as a person runs it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

LOOPFUSE = (sys.executable, "-m", "loopfuse")


def _environment(broker: Path | None, extra: dict[str, str]) -> dict[str, str]:
    named = {"LOOPFUSE_BROKER": str(broker)} if broker else {}
    return {**os.environ, "COLUMNS": "80", **named, **extra}


def loopfuse(
    broker: Path | None, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """What it says and returns; never a traceback."""
    done = subprocess.run(
        [*LOOPFUSE, *arguments],
        env=_environment(broker, environment),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def at_terminal(broker: Path, *arguments: str, **environment: str) -> str:
    """What it writes to a terminal of 80 columns."""
    master, slave = pty.openpty()
    colourful = _environment(broker, {"TERM": "xterm-256color", **environment})
    process = subprocess.Popen([*LOOPFUSE, *arguments], env=colourful, stdout=slave)
    os.close(slave)
    said = b""
    try:
        # Meanwhile: a terminal holds a few kilobytes, and a host may have many connections.
        while chunk := os.read(master, 65536):
            said += chunk
    except OSError:
        pass  # EIO: all is read
    finally:
        os.close(master)
    assert process.wait() == 0
    return said.decode()
