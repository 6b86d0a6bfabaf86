"""Whether an end that waits can hope for its counterpart.

With `--eager` its first payload byte stands still until the broker answers, so it must not
wait for somebody who will never speak: an other end held by processes without the library.
And each call of any end that waits asks for news, until it knows that there will be none. Asked
of /proc, and only when the counterpart has not come within some milliseconds. One walk
serves all who wait; walks take at most a fifth of the broker's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from loopfuse._broker_state.ledger import Connection, Ledger
from loopfuse._broker_state.verify import Verifier
from loopfuse._kernel import has_mapped, holders_of_sockets
from loopfuse._preload import LIBRARY_STEM

if TYPE_CHECKING:
    from loopfuse._matching import Endpoint

PATIENCE = 0.005
PATIENCE_OF_THE_LAZY = 5.0
"""Nothing stands still meanwhile, and of each descriptor that a walk comes upon the kernel keeps a
name and an inode, 0.9 KiB, until memory is short: so not of those that a busy server has just begun
to claim."""
PATIENCE_WITH_LISTENERS = 0.1
"""A listener may be about to be handed to a program with the library."""
REMEMBERED = 1.0
"""So long a server without the library is taken not to be replaced by one with it."""
_MOST_REMEMBERED = 1024
_SHARE = 5


class Prospects:
    """Times are time.monotonic() seconds. `give_up` is told of each end without hope."""

    def __init__(
        self, ledger: Ledger, verifier: Verifier, give_up: Callable[[Connection], None]
    ) -> None:
        self._ledger = ledger
        self._verifier = verifier
        self._give_up = give_up
        self._waiting: dict[int, float] = {}
        """When each connection's end is to be looked at."""
        self._next = 0.0
        self._not_before = 0.0
        self._hopeless: dict[tuple[int, Endpoint], float] = {}
        """Until when."""

    def examine(self, connection: Connection) -> None:
        """An end of this connection has begun to wait."""
        now = time.monotonic()
        if self._hopeless.get(_counterpart(connection), 0.0) > now:
            self._give_up(connection)
            return
        waiting = connection.waiting
        eager = waiting is not None and waiting.client.eager
        due = now + (PATIENCE if eager else PATIENCE_OF_THE_LAZY)
        self._next = max(min(due, self._next) if self._waiting else due, self._not_before)
        self._waiting[connection.id] = due

    def due(self) -> float | None:
        """When `run` wants to be called; None: not before something happens."""
        return self._next if self._waiting else None

    def run(self) -> None:
        """Does what is due."""
        begin = time.monotonic()
        if not self._waiting or begin < self._next:
            return
        wanted: dict[int, list[Connection]] = {}
        still: dict[int, float] = {}
        for connection_id, due in self._waiting.items():
            connection = self._ledger.get(connection_id)
            if connection is None or connection.waiting is None:
                continue
            inode = self._accepted(connection) if begin >= due else 0
            if not inode and begin < due + PATIENCE_WITH_LISTENERS:
                still[connection_id] = due
                continue
            inode = inode or self._listener(connection)
            if inode:
                wanted.setdefault(inode, []).append(connection)
        self._waiting = still
        if wanted:
            self._judge(wanted)
        end = time.monotonic()
        self._not_before = end + _SHARE * (end - begin)
        soonest = min(self._waiting.values(), default=end)
        self._next = max(soonest, end + PATIENCE, self._not_before)

    def _accepted(self, connection: Connection) -> int:
        """The inode of the other end's socket, 0: nobody has it yet."""
        netns, other = _counterpart(connection)
        view = self._verifier.view(netns)
        waiting = connection.waiting
        info = view.find(other, waiting.endpoint) if view and waiting else None
        return info.inode if info is not None else 0

    def _listener(self, connection: Connection) -> int:
        """The inode of the listener that it will come from, 0: unknown."""
        netns, other = _counterpart(connection)
        view = self._verifier.view(netns)
        return view.listener(other) if view else 0

    def _judge(self, wanted: dict[int, list[Connection]]) -> None:
        try:
            holders = holders_of_sockets(wanted.keys())
        except OSError:
            # No descriptor is left to look with: neither would there be one for a pair.
            for connections in wanted.values():
                for connection in connections:
                    self._give_up(connection)
            return
        loaded: dict[int, bool | None] = {}
        for inode, connections in wanted.items():
            for pid in holders.get(inode, ()):
                if pid not in loaded:
                    loaded[pid] = has_mapped(pid, LIBRARY_STEM)
            if any(loaded[pid] for pid in holders.get(inode, ())):
                continue
            for connection in connections:
                self._remember(connection)
                self._give_up(connection)

    def _remember(self, connection: Connection) -> None:
        if len(self._hopeless) >= _MOST_REMEMBERED:
            self._hopeless.clear()
        self._hopeless[_counterpart(connection)] = time.monotonic() + REMEMBERED


def _counterpart(connection: Connection) -> tuple[int, Endpoint]:
    """Where the end is that has not spoken, and in which namespace."""
    name = connection.name
    waiting = connection.waiting
    return name.netns_cookie, name.other(waiting.endpoint) if waiting else name.low
