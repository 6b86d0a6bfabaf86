"""Runs cells in a session and says what each came to."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from broker_fixtures import BrokerProcess
from sessions import Session, stop_group
from teardown.cells import CELLS, Cell

TESTS = Path(__file__).parent.parent
JOBS = 8
_TIMEOUT = 100.0


@dataclass
class Outcome:
    """`said` is what the transcript says in one line."""

    said: str
    fused: bool
    failed: str = ""
    """Why it could not be acted out."""


class Measurement:
    """Plain, or fused by a library: with a broker of its own."""

    def __init__(self, library: Path | None, *, eager: bool = False) -> None:
        self._library, self._eager = library, eager

    def outcomes(self, cells: Sequence[Cell]) -> dict[Cell, Outcome]:
        """All of them; those that kill the broker come last and side by side."""
        with_broker = [cell for cell in cells if cell.way != "broker-gone"]
        without = [cell for cell in cells if cell.way == "broker-gone"]
        with ExitStack() as stack:
            broker, session = None, Session({}, None)
            if self._library:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="loopfuse-ends-"))
                options = ("--idle-exit", "0", "--log-level", "error")
                broker = BrokerProcess(Path(folder) / "broker.sock", *options)
                stack.callback(broker.kill)
                session = Session.under(self._library, broker, eager=self._eager)
            found = _act(session, with_broker, JOBS, 0) if with_broker else {}
            if without:
                found |= _act(session, without, len(without), broker.pid if broker else 0)
        return found


def _act(session: Session, cells: Sequence[Cell], jobs: int, victim: int) -> dict[Cell, Outcome]:
    command = [sys.executable, "-m", "teardown.act", str(jobs), str(victim), *map(str, cells)]
    environment = session.environment | {"PYTHONPATH": str(TESTS)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=_TIMEOUT)
    finally:
        stop_group(process)
    rows = [] if victim or not session.broker else session.broker.rows()
    carried = {row.server.port for row in rows if row.bytes_to_server + row.bytes_to_client}
    found = {}
    for answer in map(json.loads, said.splitlines()):
        if failed := answer.get("failed"):
            outcome = Outcome("", False, f"{failed}\n{answer['trace']}")
        else:
            # A broker that was killed can't tell any more what was fused.
            fused = answer["mapped"] if victim else answer["port"] in carried
            outcome = Outcome(answer["outcome"], fused)
        found[CELLS[answer["cell"]]] = outcome
    return found
