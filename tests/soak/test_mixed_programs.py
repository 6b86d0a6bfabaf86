"""Real programs of many kinds at once, while connections are defused, programs killed, taps
switched on and off, and the broker is exchanged: every byte is right, and nothing is left."""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker_fixtures import eventually
from daemons import postgresql_cluster
from holdings import forgotten_memory, holdings_of, processes_of, segments_in_use
from sessions import Session
from soak.kinds import kinds
from soak.report import Report
from soak.troubles import Brokers, Troubles
from soak.work import Tally, Work

SHORT = 0.1
"""Minutes, when nobody asks for more."""
PATIENCE_FOR_TROUBLES = 60.0
LAST = 100.0
"""Seconds within which clients end by themselves."""
BROKER_GROWTH = 16 * 1024
"""KiB that a broker may have taken beyond what it had at the beginning: the rows of a minute,
and what Python's allocator keeps."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the broker is. PostgreSQL, which runs as another user, must reach it; so it is not
    in pytest's own folder."""
    with tempfile.TemporaryDirectory(prefix="loopfuse-soak-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


class Soak:
    """The programs, what is done to them, and what there was before."""

    def __init__(self, works: list[Work], brokers: Brokers, tally: Tally, rng: random.Random):
        self.works, self.brokers, self.tally = works, brokers, tally
        self._rng = rng
        self._troubles = Troubles(works, brokers, tally, rng)

    def run(self, seconds: float) -> None:
        """For so long, and until each trouble was had; or until something can't be explained."""
        until = time.monotonic() + seconds
        last = until + PATIENCE_FOR_TROUBLES
        while not self.tally.unexplained:
            now = time.monotonic()
            if now > last or (now > until and self._troubles.had_each()):
                break
            for work in self.works:
                work.tend(go_on=True)
            self._troubles.look_at_taps()
            if self._rng.random() < 0.4:
                self._troubles.now_and_then()
            time.sleep(self._rng.random() * 0.2)

    def wind_down(self) -> None:
        """No client is started any more; those there are end by themselves."""
        self._troubles.end_taps()
        until = time.monotonic() + LAST
        while any(work.clients for work in self.works) and time.monotonic() < until:
            for work in self.works:
                work.tend(go_on=False)
            time.sleep(0.05)
        left = [client.process.args for work in self.works for client in work.clients]
        assert not left, f"they do not end: {left}"

    def stop(self) -> None:
        self._troubles.end_taps()
        for work in self.works:
            work.stop()


def check_servers(works: list[Work], report: Report) -> None:
    """No connection is there any more: servers hold what they held before the first one."""
    for work in works:
        server = work.server
        if server is None or server.poll() is not None:
            continue

        eventually(work.holds_no_connection, f"{work.kind.name} lets go", 20)
        report.add(f"{work.kind.name}, at its start and now", f"{work.before}, {work.holdings()}")


@pytest.mark.timeout(0)
def test_every_byte_is_right_and_nothing_is_left(
    request: pytest.FixtureRequest, library: Path, programs: Path, folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("prometheus_client")
    minutes = request.config.getoption("--soak-minutes")
    rng = random.Random(request.config.getoption("--soak-seed"))
    report, tally = Report(library, "mixed programs"), Tally()
    forgotten = forgotten_memory()
    with ExitStack() as stack:
        stack.callback(report.keep, request)  # however it ends
        brokers = Brokers(folder / "broker.sock", tally)
        stack.callback(report.counts, tally, brokers)
        stack.callback(lambda: brokers.present.stop())
        cluster = stack.enter_context(postgresql_cluster()) if minutes else None
        sessions = [Session.under(library, brokers.present, eager=eager) for eager in (False, True)]
        all_kinds = kinds(programs, folder, cluster, 8.0 if minutes else 2.0)
        works = [Work(kind, sessions, tmp_path, tally, rng) for kind in all_kinds]
        soak = Soak(works, brokers, tally, rng)
        stack.callback(soak.stop)
        for work in works:
            work.start()
        soak.run(60 * (minutes or SHORT))
        soak.wind_down()
        check_servers(works, report)
        soak.stop()
        eventually(lambda: segments_in_use(folder) == [], "no segment is mapped or open", 20)
        eventually(lambda: processes_of(folder) == [], "no program is left", 20)
        broker = brokers.present
        eventually(lambda: broker.descriptors() <= brokers.descriptors, "the broker lets go", 20)
        brokers.add_up()
        report.add(
            "descriptors of the last broker", f"{brokers.descriptors}, {broker.descriptors()}"
        )
        memory = holdings_of(broker.pid).memory
        report.add("its memory at its start and now, KiB", f"{brokers.memory}, {memory}")
        assert memory <= brokers.memory + BROKER_GROWTH
        code, said = broker.stop()
        assert code == 0 and "Traceback" not in said, said
    assert not tally.unexplained, "\n\n".join(tally.unexplained)
    # Other programs' on a shared machine may be about to be mapped, or removed.
    eventually(lambda: forgotten_memory() <= forgotten, "/dev/shm is as before", 20)
    assert tally.counts["bytes compared"] > 0
    assert tally.counts["connections defused by order"] > 0
