"""The packet filters of every network namespace in use.

Which connections do their rules concern, and when does that change? The kernel tells of most
changes; for some (tables of iptables-legacy, sets that packets fill) one has to look: not while
nothing is fused, since new claims look for themselves; every five seconds where there has been none
of those so far, else once a second. Reading rules takes at most a fifth of the broker's time.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from loopfuse._firewall.walk import Watcher

if TYPE_CHECKING:
    from loopfuse._firewall.packet import Flow
    from loopfuse._firewall.watch import Watch

INTERVAL = 1.0
"""Between looks at what the kernel tells nobody of; a claim is not judged by older ones."""
LONGEST = 5.0
"""Where there has been no such thing so far."""
_SHARE = 4


class _Place:
    """One namespace. Times are time.monotonic() seconds."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.changed = False
        """The kernel told of a change that has not been read yet."""
        self.looked = time.monotonic()
        self.not_before = 0.0

    def due(self) -> float | None:
        """When to look at what the kernel does not tell of; None: it can't be seen."""
        if self.watch.blind is not None:
            return None
        patience = INTERVAL if self.watch.changes_untold else LONGEST
        return max(self.looked + patience, self.not_before)

    def refresh(self, untold_at: float | None) -> bool:
        """Reads what has changed, as far as it is time to; True if it did. `untold_at`: when to
        look at what nobody tells of, None: not now."""
        begin = time.monotonic()
        if begin < self.not_before:
            return False
        if self.changed:
            self.watch.read()
            self.changed = False
        elif untold_at is None or begin < untold_at:
            return False
        else:
            self.looked = begin
            if not self.watch.poll():
                return False
        end = time.monotonic()
        self.not_before = end + _SHARE * (end - begin)
        self.looked = end
        return True


class Firewall:
    """Asked for each connection; `fileno()` becomes readable when the kernel has news."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._epoll = select.epoll()
        self._changed: set[int] = set()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def close(self) -> None:
        self._epoll.close()

    def add(self, netns: int, watch: Watch) -> None:
        """Rules of this namespace count from now on; the watch stays the caller's."""
        self._places[netns] = _Place(watch)
        for listener in watch.listeners:
            self._epoll.register(listener.fileno(), select.EPOLLIN)

    def remove(self, netns: int) -> None:
        """Before its watch is closed."""
        for listener in self._places.pop(netns).watch.listeners:
            with contextlib.suppress(OSError):
                self._epoll.unregister(listener.fileno())

    def concerning(self, netns: int, flow: Flow, ignored: Collection[str]) -> Watcher | None:
        """A rule that looks at the payload of this connection."""
        place = self._fresh(netns)
        return place.watch.concerning(flow, ignored) if place else None

    def watchers(self, netns: int, ignored: Collection[str]) -> list[Watcher]:
        """All rules there that look at the payload of any connection."""
        place = self._fresh(netns)
        return place.watch.all(ignored) if place else []

    def _fresh(self, netns: int) -> _Place | None:
        """The place, for somebody who asks: as it was an interval ago at the most."""
        place = self._places.get(netns)
        if place is not None:
            self._hear()
            if place.refresh(place.looked + INTERVAL):
                self._changed.add(netns)
        return place

    def blind(self, netns: int) -> str | None:
        """Why the rules there can't be read; None: they can."""
        place = self._places.get(netns)
        return place.watch.blind if place else None

    def due(self, *, busy: bool) -> float | None:
        """When `run` wants to be called; None: not before something happens. `busy`: there
        are connections that rules could send back to TCP."""
        if self._changed:
            return 0.0
        times = [place.not_before for place in self._places.values() if place.changed]
        if busy:
            times += [due for one in self._places.values() if (due := one.due()) is not None]
        return min(times, default=None)

    def run(self, *, busy: bool) -> set[int]:
        """Reads what has changed; the namespaces where rules are others than before."""
        self._hear()
        for netns, place in self._places.items():
            if place.refresh(place.due() if busy else None):
                self._changed.add(netns)
        changed, self._changed = self._changed, set()
        return changed

    def _hear(self) -> None:
        if self._epoll.poll(0):
            for place in self._places.values():
                place.changed = place.watch.heard() or place.changed
