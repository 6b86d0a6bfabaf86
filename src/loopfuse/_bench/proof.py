"""Did the bytes go the way that the column's name says? A benchmark that measured plain TCP
and called it fused would be a lie, so every figure comes with what the broker and /proc say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from loopfuse._bench.results import Proof
from loopfuse._control import fetch_rows
from loopfuse._kernel import has_mapped
from loopfuse._messages import Row
from loopfuse._preload import LIBRARY_NAME, library_path
from loopfuse._reasons import Reason

_NOT_YET = (Reason.NO_COUNTERPART.code, Reason.NONE.code)
_SECONDS = 10.0
_CONNECTIONS_A_SECOND = 300
"""That a busy broker pairs at the least: how long many connections may take."""


class Witness:
    """Looks at the connections to one server port before and after a measurement."""

    def __init__(self, broker: Path, port: int | None) -> None:
        self._broker = broker
        self._port = port
        self._seen: set[int] = set()
        self._before = 0

    def rows(self) -> list[Row]:
        if self._port is None:
            return []
        return [
            row
            for row in fetch_rows(self._broker)
            if row.server.port == self._port and row.id not in self._seen
        ]

    def wait_until_fused(self, connections: int, alive: Callable[[], bool]) -> None:
        """Returns when so many connections use their rings, or will not any more: the
        proof then says so."""
        deadline = time.monotonic() + _SECONDS + connections / _CONNECTIONS_A_SECOND
        while time.monotonic() < deadline and alive():
            rows = self.rows()
            if sum(1 for row in rows if row.bytes_to_server) >= connections:
                return
            if any(row.state != "fused" and row.reason not in _NOT_YET for row in rows):
                return
            time.sleep(0.01 + connections / 50000)

    def start(self) -> None:
        """From here on it is measured."""
        self._before = carried(self.rows())

    def forget(self) -> None:
        """Connections that there were until now belong to what came before."""
        self._seen.update(row.id for row in self.rows())
        self._before = 0

    def of_fused(self, pids: Sequence[int], connections: int, payload: int) -> Proof:
        """All of so many connections were fused, and at least so many bytes took the rings."""
        rows = self.rows()
        fused = [row for row in rows if row.bytes_to_server + row.bytes_to_client > 0]
        through = carried(rows) - self._before
        holds = len(fused) >= connections and through >= payload and through > 0
        if holds:
            words = f"{len(fused)} of {len(rows)} connections fused, {through:,} bytes in rings"
        elif not any(_under_library(pid) for pid in pids):
            words = "not fused: the library is not loaded"
        else:
            why = sorted({row.reason for row in rows if row.reason}) or ["no reason given"]
            words = (
                f"not fused: {len(fused)} of {connections} connections, {through:,} of "
                f"{payload:,} bytes in rings ({', '.join(why)})"
            )
        return Proof(holds, words, len(rows), len(fused), max(0, through))

    def of_short(self, pids: Sequence[int]) -> Proof:
        """The programs run under loopfuse, whatever their short connections come to."""
        rows = self.rows()
        fused = sum(1 for row in rows if row.bytes_to_server + row.bytes_to_client > 0)
        loaded = all(_under_library(pid) for pid in pids)
        if not loaded:
            return Proof(False, "not under loopfuse: the library is not loaded", len(rows), 0, 0)
        words = f"under loopfuse; {fused} of these short connections were fused"
        return Proof(True, words, len(rows), fused, max(0, carried(rows) - self._before))

    def of_unfused(self, pid: int) -> Proof:
        """The program runs under loopfuse, and nothing that it does can be fused."""
        rows = self.rows()
        through = carried(rows)
        if not _under_library(pid):
            return Proof(False, "not under loopfuse: the library is not loaded", len(rows), 0, 0)
        if through:
            return Proof(False, f"{through:,} bytes in rings", len(rows), len(rows), through)
        return Proof(True, "under loopfuse, with nothing to fuse", len(rows), 0, 0)

    def of_plain(self, pids: Iterable[int]) -> Proof:
        """No library, and nothing that the broker has heard of."""
        rows = self.rows()
        loaded = any(_under_library(pid) for pid in pids)
        holds = not rows and not loaded
        words = "not fused" if holds else "not plain: the library is at work"
        return Proof(holds, words, len(rows), 0, carried(rows))


def all_of(proofs: Sequence[Proof]) -> Proof:
    """One for several connections at once, which holds if all of them do."""
    failed = [proof for proof in proofs if not proof.holds]
    connections = sum(proof.connections for proof in proofs)
    fused = sum(proof.fused for proof in proofs)
    ring_bytes = sum(proof.ring_bytes for proof in proofs)
    if failed:
        words = failed[0].words
    elif fused:
        words = f"{fused} of {connections} connections fused, {ring_bytes:,} bytes in rings"
    else:
        words = proofs[0].words
    return Proof(not failed, words, connections, fused, ring_bytes)


def carried(rows: Iterable[Row]) -> int:
    """Payload bytes that took the rings."""
    return sum(row.bytes_to_server + row.bytes_to_client for row in rows)


def _under_library(pid: int) -> bool:
    return bool(has_mapped(pid, LIBRARY_NAME) or has_mapped(pid, library_path().name))
