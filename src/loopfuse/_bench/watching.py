"""What it costs to be seen: one connection, measured in turns with nobody watching and with each
watcher. The same two processes and the same ring all the time: between one pair of processes and
the next lies more than what is looked for here.

The watchers run for the whole row, and are stopped (SIGSTOP) whenever it is not their turn; so is
the broker while nobody watches. It serves metrics throughout, and reads the rings' counters for
them: that is part of what each watcher costs here.
"""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from loopfuse._bench.children import Child, running
from loopfuse._bench.ends import PATIENCE, Ends, decoded, meeting
from loopfuse._bench.machine import cpus_of
from loopfuse._bench.place import Place, broker_at, own_command, own_environment
from loopfuse._bench.results import Sample
from loopfuse._bench.sides import LOOPFUSE, Side
from loopfuse._bench.workloads import Workload
from loopfuse._control import fetch_status
from loopfuse._errors import BenchError

TOP_LOOKS = 2.0
"""Seconds between two looks of `loopfuse top`, unless it is told otherwise. No measurement is
shorter: each has one look at least."""
SCRAPES = 1.0
_OTHER_SECONDS = 0.01


@dataclass
class Row:
    """A connection and those who can watch it. Use `watchable()`."""

    place: Place
    load: Workload
    ends: Ends
    seconds: float
    broker: Child
    top: Child
    tap: Child
    tapped: Ends
    """Another connection, asleep but for a moment after each turn of the tap."""
    metrics: str | None
    """Their URL; None: they can't be served here."""
    scrapes: list[bytes] = field(default_factory=list)

    def measure(self, side: Side) -> Sample:
        """Raises BenchError if a program fails or takes too long, or a watcher did not watch."""
        self.ends.witness.start()
        for child in (self.broker, self.top, self.tap):
            child.drain()
            child.pause()
        with self._watching(side):
            self.ends.client.tell()
            if side.watcher is not None:
                self.broker.resume()
            if side.watcher == "top":
                self.top.resume()
            if side.watcher == "tap":
                self.tap.resume()
            measured = decoded(self.ends.client.line(PATIENCE + self.seconds))
        self.broker.resume()
        self._has_watched(side)
        proof = self.ends.witness.of_fused(self.ends.pids, 1, measured.bytes)
        return measured.sample(self.load.work, proof)

    @contextmanager
    def _watching(self, side: Side) -> Iterator[None]:
        if side.watcher != "metrics":
            yield
            return
        if self.metrics is None:
            raise BenchError("metrics can't be served: pip install 'loopfuse[metrics]'")
        self.scrapes.clear()
        over = threading.Event()
        scraper = threading.Thread(target=self._scrape, args=(self.metrics, over))
        scraper.start()
        try:
            yield
        finally:
            over.set()
            scraper.join()

    def _scrape(self, url: str, over: threading.Event) -> None:
        while True:
            with suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                self.scrapes.append(answer.read())
            if over.wait(SCRAPES):
                return

    def _has_watched(self, side: Side) -> None:
        if side.watcher == "top" and b"measure" not in self.top.drain():
            raise BenchError("loopfuse top has shown nothing meanwhile")
        if side.watcher == "metrics" and not any(map(_tells_bytes, self.scrapes)):
            raise BenchError("no scrape has brought what the connection carried")
        if side.watcher == "tap":
            self.tap.drain()
            self.tapped.client.tell()
            self.tapped.client.line(PATIENCE)
            self.tap.wait_for_output(PATIENCE)


def _tells_bytes(scrape: bytes) -> bool:
    found = re.search(rb'^loopfuse_ring_bytes_total\{direction="to_server"\} (\S+)', scrape, re.M)
    return found is not None and float(found[1]) > 0


@contextmanager
def watchable(place: Place, load: Workload, seconds: float) -> Iterator[Row]:
    """The connection, fused, and its watchers, at rest. Raises BenchError."""
    seconds = max(seconds, TOP_LOOKS)
    cpus = cpus_of("two") or (None, None)
    with_metrics = find_spec("prometheus_client") is not None
    words = (f"work={'batches' if load.work == 'stream' else load.work}", f"size={load.size}")
    other = ("work=roundtrip", "size=1")
    with ExitStack() as stack:
        socket = place.folder / "watched.sock"
        options = ("--metrics", "127.0.0.1:0") if with_metrics else ()
        broker = stack.enter_context(broker_at(socket, *options))
        here = replace(place, broker=socket, broker_pid=broker.pid)
        tapped = stack.enter_context(
            meeting(
                here, LOOPFUSE, other, client_words=(f"seconds={_OTHER_SECONDS}",), name="tapped"
            )
        )
        tapped.wait_until_fused(1)
        environment = own_environment() | {"LOOPFUSE_BROKER": str(socket)}
        port = str(tapped.port)
        tap = stack.enter_context(
            running(own_command("tap", "--port", port, "-w", "-"), environment)
        )
        tap.wait_for_output(PATIENCE)  # the file's head
        tapped.client.tell()
        tapped.client.line(PATIENCE)
        ends = stack.enter_context(
            meeting(here, LOOPFUSE, words, client_words=(f"seconds={seconds}",), cpus=cpus)
        )
        ends.wait_until_fused(1)
        top = stack.enter_context(running(own_command("top", "--plain"), environment))
        top.wait_for_output(PATIENCE)
        served = fetch_status(socket).metrics
        url = f"http://{served}/metrics" if served else None
        # What comes first is never like the rest.
        ends.client.tell()
        ends.client.line(PATIENCE + seconds)
        try:
            yield Row(here, load, ends, seconds, broker, top, tap, tapped, url)
        finally:
            for child in (broker, top, tap):
                child.resume()
