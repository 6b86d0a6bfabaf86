"""Which connections are over: those whose sockets nobody holds any more.

A hint has single connections looked at at once: a library's CLOSED, a client that hung up. Both
ends of a pair give one, so that it hardly ever ends unseen (both by a system call past the C
library, by a kill of forked children that never spoke to the broker); of other connections nobody
tells. So all of them are looked at as well, while there are such others about once a second,
pairs alone some seconds after somebody has spoken. While nobody says anything and nothing is found,
that comes ever more seldom: idle connections cost nothing. Dumping a big socket table is not
free either: the sweep takes at most a twentieth of the broker's time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from heapq import heappop, heappush

from loopfuse._broker_state.decisions import Decisions
from loopfuse._broker_state.ledger import Connection, Ledger
from loopfuse._broker_state.rows import row_of, state_of
from loopfuse._broker_state.verify import NetnsView, Verifier
from loopfuse._errors import SockDiagError

INTERVAL = 1.0
CALM = 8.0
"""The least, where there are only pairs."""
LONGEST = 256.0
LONGEST_UNTOLD = 8.0
"""While something depends on it that no hint tells of: a namespace that a view keeps alive, a line
in the log of what only a segment says."""
HINT_DELAY = 0.02
_HINT_LOOKS = 10
"""The closer may be held up between its hint and its close, so it is looked for again, each time
twice as late, for some 20 s in all. What only sweeps find piles up when very many connections
close."""
_FEW = 200
"""So many sockets are looked up one by one: a dump walks all of the kernel's table, empty or not
(some 10 ms where that has a quarter of a million places)."""
_SHARE = 20
_HINTS_A_TURN = 500
_LOOKS_A_SWEEP = 500


class Sweep:
    """Times are time.monotonic() seconds."""

    def __init__(self, ledger: Ledger, verifier: Verifier, decisions: Decisions) -> None:
        self._ledger = ledger
        self._decisions = decisions
        self._looked_until = 0
        """Id of the pair that `_notice` looked at last."""
        self._verifier = verifier
        self._patience = INTERVAL
        self._since = time.monotonic()
        """When the last sweep ended, or somebody spoke for the first time after it."""
        self._soonest = self._since + INTERVAL
        self._stirred = True
        self._found = False
        """The last sweep did: what nobody told of."""
        self._hints: list[tuple[float, int, int]] = []
        """A heap: when to look at which connection, and how often that has been done in vain."""
        self._hinted: set[int] = set()
        """Those that are in it."""

    def hint(self, ids: Iterable[int]) -> None:
        """These connections may be over; the hint may come shortly before the close."""
        due = time.monotonic() + HINT_DELAY
        for one in set(ids) - self._hinted:
            if self._ledger.get(one) is None:  # over already, or made up: there may be millions
                continue
            self._hinted.add(one)
            heappush(self._hints, (due, one, 0))

    def stir(self) -> None:
        """Somebody has said something to the broker: other things may have changed, too."""
        self._patience = INTERVAL
        if not self._stirred:
            self._stirred = True
            self._since = time.monotonic()

    def due(self) -> float | None:
        """When `run` wants to be called; None: not before something happens."""
        if self._hints:
            return min(self._next(), self._hints[0][0])
        return self._next() if len(self._ledger) or self._verifier.looks_abroad else None

    def _next(self) -> float:
        """When all of them are to be looked at."""
        return max(self._soonest, self._since + self._wait())

    def _wait(self) -> float:
        if self._verifier.looks_abroad or self._decisions.told:
            return min(self._patience, LONGEST_UNTOLD)
        if self._found or len(self._ledger) > self._ledger.pairs:
            return self._patience
        return max(self._patience, CALM)

    def run(self) -> None:
        """Does what is due."""
        now = time.monotonic()
        for _ in range(_HINTS_A_TURN):
            if not self._hints or self._hints[0][0] > now:
                break
            self._follow(*heappop(self._hints))
        if now >= self._next():
            self._patience = min(2 * self._wait(), LONGEST)
            self._sweep(now)

    def run_for_a_list(self) -> None:
        """The same, when somebody asks: what is listed is to be no older than an interval."""
        self.run()
        now = time.monotonic()
        if now >= self._soonest:
            self._sweep(now)

    def _sweep(self, begin: float) -> None:
        before = len(self._ledger)
        self._all()
        end = time.monotonic()
        self._found = len(self._ledger) != before
        if self._found or self._stirred:
            self._patience = INTERVAL
        self._stirred = False
        self._since = end
        self._soonest = end + max(INTERVAL, _SHARE * (end - begin))

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
