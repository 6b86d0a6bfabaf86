"""Which connections are over: those whose sockets nobody holds any more.

Asked of the kernel, about once a second, since a process may die, exec or hand its
sockets on without a word. Dumping a big socket table is not free: the sweep takes at
most a twentieth of the broker's time, and while nobody says anything and nothing is found,
it comes ever more seldom. A hint (a library's CLOSED, a client that hung up) has single
connections looked at much sooner.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from heapq import heappop, heappush

from loopfuse._broker_state.budget import Budget
from loopfuse._broker_state.decisions import Decisions
from loopfuse._broker_state.ledger import Connection, Ledger
from loopfuse._broker_state.rows import row_of, state_of
from loopfuse._broker_state.verify import NetnsView, Verifier
from loopfuse._errors import SockDiagError

INTERVAL = 1.0
LONGEST = 8.0
HINT_DELAY = 0.02
_HINT_LOOKS = 6
"""The closer may be held up between its hint and its close, so it is looked for again, each time
twice as late. What only sweeps find piles up when very many connections close."""
_FEW = 200
"""So many sockets are looked up one by one: a dump walks all of the kernel's table, empty or not
(some 10 ms where that has a quarter of a million places)."""
_SHARE = 20
_HINTS_A_TURN = 500
_LOOKS_A_SWEEP = 500


class Sweep:
    """Times are time.monotonic() seconds."""

    def __init__(
        self, ledger: Ledger, verifier: Verifier, budget: Budget, decisions: Decisions
    ) -> None:
        self._ledger = ledger
        self._decisions = decisions
        self._looked_until = 0
        """Id of the pair that `_notice` looked at last."""
        self._budget = budget
        self._verifier = verifier
        self._patience = INTERVAL
        self._soonest = time.monotonic() + INTERVAL
        self._next = self._soonest
        self._hints: list[tuple[float, int, int]] = []
        """A heap: when to look at which connection, and how often that has been done in vain."""
        self._hinted: set[int] = set()
        """Those that are in it."""

    def hint(self, ids: Iterable[int]) -> None:
        """These connections may be over; the hint may come shortly before the close."""
        due = time.monotonic() + HINT_DELAY
        for one in set(ids) - self._hinted:
            self._hinted.add(one)
            heappush(self._hints, (due, one, 0))

    def stir(self) -> None:
        """Somebody has said something to the broker: other things may have changed, too."""
        self._patience = INTERVAL
        self._next = self._soonest

    def due(self) -> float | None:
        """When `run` wants to be called; None: not before something happens."""
        if self._hints:
            return min(self._next, self._hints[0][0])
        return self._next if len(self._ledger) or self._verifier.looks_abroad else None

    def run(self) -> None:
        """Does what is due."""
        now = time.monotonic()
        for _ in range(_HINTS_A_TURN):
            if not self._hints or self._hints[0][0] > now:
                break
            self._follow(*heappop(self._hints))
        if now >= self._next:
            before = len(self._ledger)
            self._all()
            end = time.monotonic()
            if len(self._ledger) != before:
                self._patience = INTERVAL
            self._soonest = end + max(INTERVAL, _SHARE * (end - now))
            self._next = max(self._soonest, end + self._patience)
            self._patience = min(2 * self._patience, LONGEST)

    def _follow(self, due: float, connection_id: int, looks: int) -> None:
        connection = self._ledger.get(connection_id)
        looks += 1
        if connection is None or self._close_if_over(connection) or looks == _HINT_LOOKS:
            self._hinted.discard(connection_id)
        else:
            heappush(self._hints, (due + HINT_DELAY * 2**looks, connection_id, looks))

    def _all(self) -> None:
        namespaces: dict[int, list[Connection]] = {}
        for connection in self._ledger:
            namespaces.setdefault(connection.name.netns_cookie, []).append(connection)
        for netns, connections in namespaces.items():
            view = self._verifier.view(netns)
            if view is None:
                continue
            if len(connections) <= _FEW:
                for connection in connections:
                    self._close_if_over(connection)
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
        if self._decisions.told:
            self._notice()

    def _notice(self) -> None:
        """Tells of pairs that an end has sent back to TCP, which only the segment says; some at
        a time, so that nobody has to wait for it."""
        pairs = [one for one in self._ledger if one.paired and not one.end_told]
        later = [one for one in pairs if one.id > self._looked_until]
        for connection in (later or pairs)[:_LOOKS_A_SWEEP]:
            self._looked_until = connection.id
            if state_of(connection)[0] == "defused":
                self._decisions.noticed(connection, row_of(connection))

    def _close_if_over(self, connection: Connection) -> bool:
        view = self._verifier.view(connection.name.netns_cookie)
        over = view is not None and not _is_held(view, connection)
        if over:
            self._ledger.close(connection)
        return over


def _is_held(view: NetnsView, connection: Connection) -> bool:
    for endpoint, end in connection.ends.items():
        info = view.find(endpoint, connection.name.other(endpoint), end.cookie)
        if info is not None and info.inode:
            return True
    return False
