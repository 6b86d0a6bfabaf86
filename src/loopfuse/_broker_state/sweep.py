"""Which connections are over: those whose sockets nobody holds any more.

Asked of the kernel, about once a second, since a process may die, exec or hand its
sockets on without a word. Dumping a big socket table is not free: the sweep takes at
most a twentieth of the broker's time. A hint (a library's CLOSED, a client that hung
up) has single connections looked at much sooner.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from loopfuse._broker_state.budget import Budget
from loopfuse._broker_state.ledger import Connection, Ledger
from loopfuse._broker_state.verify import NetnsView, Verifier
from loopfuse._errors import SockDiagError

INTERVAL = 1.0
HINT_DELAY = 0.02
_SHARE = 20
_HINTS_A_TURN = 500


class Sweep:
    """Times are time.monotonic() seconds."""

    def __init__(self, ledger: Ledger, verifier: Verifier, budget: Budget) -> None:
        self._ledger = ledger
        self._budget = budget
        self._verifier = verifier
        self._next = time.monotonic() + INTERVAL
        self._hints: set[int] = set()
        self._hints_due = 0.0

    def hint(self, ids: Iterable[int]) -> None:
        """These connections may be over; the hint may come shortly before the close."""
        if not self._hints:
            self._hints_due = time.monotonic() + HINT_DELAY
        self._hints.update(ids)

    def due(self) -> float | None:
        """When `run` wants to be called; None: not before something happens."""
        if self._hints:
            return min(self._next, self._hints_due)
        return self._next if len(self._ledger) or self._verifier.looks_abroad else None

    def run(self) -> None:
        """Does what is due."""
        now = time.monotonic()
        if self._hints and now >= self._hints_due:
            for _ in range(min(len(self._hints), _HINTS_A_TURN)):
                connection = self._ledger.get(self._hints.pop())
                if connection is not None:
                    self._close_if_over(connection)
        if now >= self._next:
            self._all()
            end = time.monotonic()
            self._next = end + max(INTERVAL, _SHARE * (end - now))

    def _all(self) -> None:
        namespaces: dict[int, list[Connection]] = {}
        for connection in self._ledger:
            namespaces.setdefault(connection.name.netns_cookie, []).append(connection)
        for netns, connections in namespaces.items():
            view = self._verifier.view(netns)
            if view is None:
                continue
            try:
                held = view.diag.held_cookies()
            except SockDiagError:
                continue
            for connection in connections:
                if not any(end.cookie in held for end in connection.ends.values()):
                    self._close_if_over(connection)
        self._verifier.forget_all_but(set(namespaces))
        self._budget.measure(one.segment for one in self._ledger if one.paired)

    def _close_if_over(self, connection: Connection) -> None:
        view = self._verifier.view(connection.name.netns_cookie)
        if view is not None and not _is_held(view, connection):
            self._ledger.close(connection)


def _is_held(view: NetnsView, connection: Connection) -> bool:
    for endpoint, end in connection.ends.items():
        name = connection.name
        other = name.high if endpoint == name.low else name.low
        info = view.find(endpoint, other, end.cookie)
        if info is not None and info.inode:
            return True
    return False
