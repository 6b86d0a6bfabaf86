"""The metrics in Prometheus' text format. docs/metrics.md lists them.

Nothing has a label for a single connection or program: what they are is for `loopfuse top`,
and the number of time series must not depend on what programs do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from loopfuse._broker_state.rows import END_OF_LIFE
from loopfuse._broker_state.tally import PAIRING_BOUNDS, Tally
from loopfuse._reasons import Reason
from loopfuse._segments import WAKE_BOUNDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ERRORS = ("protocol", "slow-client", "turned-away", "pair", "policy", "segment", "impossible-count")
"""All kinds there are: each is there from the start, as 0."""
_REASONS = tuple(reason.code for reason in Reason if reason != Reason.NONE)
_DEFUSING = tuple(reason.code for reason in Reason if reason not in END_OF_LIFE)
_FRESH = 1.0


class Now:
    """What is no count, but is so at the moment."""

    def __init__(self, clients: int, plain: int, memory: int) -> None:
        self.clients = clients
        self.plain = plain
        """Connections that were never paired."""
        self.memory = memory


class Exposition(Collector):
    """Makes the text, once a second at most: whoever asks more often gets the same again."""

    def __init__(self, tally: Tally, now: Callable[[], Now], version: str) -> None:
        self._tally = tally
        self._now = now
        self._version = version
        self._started = time.time()
        self._text = b""
        self._made = -_FRESH
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """What a scrape gets."""
        if time.monotonic() - self._made >= _FRESH:
            self._text = generate_latest(self._registry)
            self._made = time.monotonic()
        return self._text

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        tally, now = self._tally, self._now()
        yield _gauge("loopfuse_build_info", "Which version it is.", {"version": self._version}, 1)
        yield _gauge("loopfuse_start_time_seconds", "When the broker started.", {}, self._started)
        yield _gauge("loopfuse_clients", "Programs (and others) that talk to it.", {}, now.clients)
        yield _gauge(
            "loopfuse_segment_memory_bytes",
            "Memory that the rings take, as last measured.",
            {},
            now.memory,
        )
        yield self._connections(now)
        yield _counter("loopfuse_fused", "Connections that were fused.", {"": tally.fused}, "")
        yield _counter(
            "loopfuse_declined",
            "Connections that stay plain TCP, by reason.",
            {code: tally.declined[code] for code in (*_REASONS, "unknown")},
            "reason",
        )
        yield _counter(
            "loopfuse_defused",
            "Fused connections that went back to plain TCP before their end, by reason.",
            {code: tally.defused[code] for code in (*_DEFUSING, "unknown")},
            "reason",
        )
        errors = {kind: tally.errors[kind] for kind in ERRORS}
        yield _counter("loopfuse_errors", "What went wrong, by kind.", errors, "kind")
        yield _histogram(
            "loopfuse_pairing_seconds",
            "From an end's claim until both ends had their rings.",
            PAIRING_BOUNDS,
            {"": (tally.pairing, tally.pairing_seconds)},
            "",
        )
        yield from self._payload()

    def _connections(self, now: Now) -> Metric:
        read = self._tally.states
        states = {state: read[state] for state in ("fused", "plain", "defused")}
        states["plain"] += now.plain
        family = GaugeMetricFamily(
            "loopfuse_connections", "Living connections, by state.", labels=["state"]
        )
        for state, count in states.items():
            family.add_metric([state], count)
        return family

    def _payload(self) -> Iterator[Metric]:
        tally = self._tally
        flows = {"to_server": tally.to_server, "to_client": tally.to_client}
        waits = {"reader": tally.readers, "writer": tally.writers}
        yield _counter(
            "loopfuse_ring_bytes",
            "Payload that went through rings.",
            {name: flow.bytes for name, flow in flows.items()},
            "direction",
        )
        yield _counter(
            "loopfuse_ring_messages",
            "Sends that put payload into rings.",
            {name: flow.messages for name, flow in flows.items()},
            "direction",
        )
        yield _counter(
            "loopfuse_doorbells",
            "Doorbells rung, by whom they were for.",
            {name: wait.rings for name, wait in waits.items()},
            "waiter",
        )
        yield _counter(
            "loopfuse_sleeps",
            "How often readers slept for bytes, and writers for room.",
            {name: wait.sleeps for name, wait in waits.items()},
            "waiter",
        )
        spins = CounterMetricFamily(
            "loopfuse_spins",
            "Spins before a sleep, by whether they made it needless.",
            labels=["waiter", "result"],
        )
        for name, wait in waits.items():
            spins.add_metric([name, "paid"], wait.spins_paid)
            spins.add_metric([name, "vain"], wait.spins_vain)
        yield spins
        yield _histogram(
            "loopfuse_wakeup_seconds",
            "From the ring of a doorbell to the sleeper's return.",
            WAKE_BOUNDS,
            {name: (wait.wakes, wait.wake_ns / 1e9) for name, wait in waits.items()},
            "waiter",
        )


def _gauge(name: str, words: str, labels: Mapping[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, words, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _counter(name: str, words: str, values: Mapping[str, int], label: str) -> Metric:
    """`label`: its name, or "" for a single value."""
    family = CounterMetricFamily(name, words, labels=[label] if label else [])
    for value, count in sorted(values.items()):
        family.add_metric([value] if label else [], count)
    return family


def _histogram(
    name: str,
    words: str,
    bounds: Sequence[float],
    values: Mapping[str, tuple[Sequence[int], float]],
    label: str,
) -> Metric:
    family = HistogramMetricFamily(name, words, labels=[label] if label else [])
    edges = [*(repr(bound) for bound in bounds), "+Inf"]
    for value, (classes, total) in values.items():
        sums = [sum(classes[: i + 1]) for i in range(len(classes))]
        buckets = list(zip(edges, map(float, sums), strict=True))
        family.add_metric([value] if label else [], buckets, total)
    return family
