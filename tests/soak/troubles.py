"""What the soak does to programs that are at work."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import loopfuse
from broker_fixtures import BrokerProcess
from holdings import holdings_of
from loopfuse._control import order_defuse
from loopfuse._errors import LoopfuseError
from scrape import Samples, scrape
from sessions import free_port
from soak.work import Tally, Work

TAPS = 3
LONGEST_TAP = 3.0


class Brokers:
    """One broker after the other at the same place, and what all of them counted."""

    def __init__(self, path: Path, tally: Tally) -> None:
        self.path = path
        self.memory = self.descriptors = 0
        """What the present one took and held before any program came; KiB."""
        self._tally = tally
        self.counted: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self.present = self._start()

    def _start(self) -> BrokerProcess:
        self._port = free_port()
        metrics = ("--metrics", f"127.0.0.1:{self._port}")
        options = ("--idle-exit", "0", "--log-level", "error", *metrics)
        broker = BrokerProcess(self.path, *options)
        broker.rows()
        scrape(self._port)
        self.descriptors, _, self.memory = holdings_of(broker.pid)
        self._tally.counts["brokers started"] += 1
        return broker

    def scrape(self) -> Samples:
        return scrape(self._port)

    def add_up(self) -> None:
        """Takes in what the present one has counted; once, at its end."""
        samples = self.scrape()
        for key, value in samples.items():
            if key[0].endswith("_total"):
                self.counted[key] += int(value)
        if samples.get(("loopfuse_defused_total", ("corrupt",))):
            rows = [row for row in self.present.rows() if row.reason == "corrupt"]
            self._tally.unexplained.append(f"rings were found corrupt: {rows}")

    def exchange(self, number: signal.Signals) -> None:
        """Ends it and starts another one. Fused connections go on."""
        self.add_up()
        if number == signal.SIGKILL:
            self.present.process.kill()
        code, said = self.present.stop()
        if code not in (0, -signal.SIGKILL) or "Traceback" in said:
            self._tally.unexplained.append(f"the broker ended with {code}\n{said}")
        self._tally.counts[f"brokers ended by {number.name}"] += 1
        self.present = self._start()


class Troubles:
    """`now_and_then()` does one thing: at first each once, then what `rng` draws. What does one
    returns whether there was something to do it to."""

    def __init__(self, works: list[Work], brokers: Brokers, tally: Tally, rng: random.Random):
        self._works = works
        self._brokers = brokers
        self._tally = tally
        self._rng = rng
        self._taps: list[tuple[loopfuse.Tap, float]] = []
        self._doings = {
            self.defuse: 50,
            self.tap: 20,
            self.kill_client: 20,
            self.kill_server: 5,
            self.exchange_broker: 2,
        }

        self._first = self._rng.sample(list(self._doings), len(self._doings))

    def now_and_then(self) -> None:
        (drawn,) = self._rng.choices(list(self._doings), list(self._doings.values()))
        if not self._first:
            drawn()
        elif self._first[-1]():
            self._first.pop()

    def had_each(self) -> bool:
        """Has each been done once?"""
        return not self._first

    def defuse(self) -> bool:
        rows = self._brokers.present.rows()
        if any(row.reason == "corrupt" for row in rows):
            self._tally.unexplained.append("a ring was found corrupt")
        fused = [row.id for row in rows if row.state == "fused" and row.bytes_to_server]
        if not fused:
            return False
        some = self._rng.sample(fused, min(len(fused), self._rng.choice([1, 1, 2, 5])))
        answers = order_defuse(self._brokers.path, some)
        done = sum(answer.result == "defused" for answer in answers)
        self._tally.counts["connections defused by order"] += done
        return done > 0

    def kill_client(self) -> bool:
        return self._rng.choice(self._works).kill_client()

    def kill_server(self) -> bool:
        return self._rng.choice(self._works).kill_server()

    def exchange_broker(self) -> bool:
        self._brokers.exchange(self._rng.choice([signal.SIGKILL, signal.SIGTERM]))
        return True

    # -- taps -----------------------------------------------------------------------

    def tap(self) -> bool:
        if len(self._taps) == TAPS:
            return False
        ports = [work.port for work in self._works]
        some = self._rng.sample(ports, self._rng.randrange(1, len(ports) + 1))
        size = 1 << self._rng.randrange(17, 23)
        tap = loopfuse.tap(ports=some, path=self._brokers.path, buffer=size)
        self._taps.append((tap, time.monotonic() + self._rng.random() * LONGEST_TAP))
        self._tally.counts["taps"] += 1
        return True

    def look_at_taps(self) -> None:
        """Takes what they have; ends those whose time has come, or whose broker has gone."""
        for one in list(self._taps):
            tap, until = one
            packets = tap.take(0.0)
            self._tally.counts["bytes tapped"] += sum(len(p.payload) for p in packets or ())
            if packets is None or time.monotonic() > until:
                self._end(one)

    def end_taps(self) -> None:
        for one in list(self._taps):
            self._end(one)

    def _end(self, one: tuple[loopfuse.Tap, float]) -> None:
        tap, _ = one
        self._taps.remove(one)
        with suppress(LoopfuseError):
            statistics = tap.statistics()
            self._tally.counts["packets tapped"] += statistics.packets
            self._tally.counts["records damaged"] += statistics.damaged
        tap.close()
