"""Very many connections at once: all are fused, each carries bytes both ways, and all that they
took is given back."""

from __future__ import annotations

import resource
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker_fixtures import eventually
from holdings import Holdings, holdings_of
from sessions import Session, free_port
from soak.report import Report
from soak.troubles import Brokers
from soak.work import Tally

DEFAULT = 500
ROUNDS = 100
"""So many that the broker, which has thousands to do at a time, gets round to the last."""
MESSAGE = 64
"""Bytes of each, tests/programs/many.c."""
MOST_PER_PROCESS = 5000
"""Each takes two descriptors at either end: the hard limit of 20,000 here is not to be met."""
SPARE = 1000
"""Descriptors beside those of connections."""


class Crowd:
    """So many connections of one client process with one server process."""

    def __init__(self, session: Session, binary: Path, count: int, stack: ExitStack) -> None:
        self.count = count
        self.port = free_port()
        limited = ["sh", "-c", f'ulimit -n {2 * count + SPARE} && exec "$@"', "sh"]
        server = [*limited, str(binary), "server", str(self.port)]
        self.server = stack.enter_context(session.server(server, self.port)).pid
        self.before = holdings_of(self.server)
        numbers = [str(self.port), str(count), str(ROUNDS)]
        self.client = session.start([*limited, str(binary), "client", *numbers, "hold"])
        stack.callback(self._end)

    def _end(self) -> None:
        self.client.kill()
        self.client.communicate()

    def await_word(self, word: str) -> None:
        assert self.client.stdout is not None
        assert self.client.stdout.readline() == f"{word}\n", "a wrong or missing echo"

    def go_on(self) -> None:
        """The last round on each, then they are closed."""
        assert self.client.stdin is not None
        self.client.stdin.write("\n")
        self.client.stdin.flush()
        self.await_word("ok")
        assert self.client.wait(30) == 0

    def has_given_back(self) -> bool:
        return holdings_of(self.server).is_back_at(self.before)

    def held(self) -> Holdings:
        return holdings_of(self.client.pid, self.server)


@pytest.mark.timeout(0)
def test_all_of_very_many_are_fused_at_once(
    request: pytest.FixtureRequest, library: Path, programs: Path, brokers: Brokers
) -> None:
    count = request.config.getoption("--at-once") or DEFAULT
    each = min(count, MOST_PER_PROCESS)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2 * each + SPARE:
        pytest.skip(f"the hard limit on descriptors is below {2 * each + SPARE}")
    session = Session.under(library, brokers.present, eager=False)
    with ExitStack() as stack:
        crowds = [
            Crowd(session, programs / "many", min(each, count - begun), stack)
            for begun in range(0, count, each)
        ]
        for crowd in crowds:
            crowd.await_word("ready")
        rows = brokers.present.rows()
        at_once = [crowd.held() for crowd in crowds]
        broker_at_once = holdings_of(brokers.present.pid)
        for crowd in crowds:
            crowd.go_on()
        for crowd in crowds:
            eventually(crowd.has_given_back, "the server gives back what it took", 30)
        # The servers are still there: for each it has a connection and a mailbox.
        most = brokers.descriptors + 2 * len(crowds)
        eventually(lambda: brokers.present.descriptors() <= most, "the broker lets go", 30)
        after = [holdings_of(crowd.server) for crowd in crowds]
        broker_after = holdings_of(brokers.present.pid)
    states = Counter((row.state, row.reason) for row in rows)
    assert states == {("fused", None): count}
    unused = [row.id for row in rows if not (row.bytes_to_server and row.bytes_to_client)]
    assert not unused, f"{len(unused)} carried nothing"
    for crowd, held in zip(crowds, at_once, strict=True):
        assert held.mappings == 4 * crowd.count  # as a whole, and its header, at both ends
    brokers.add_up()
    report = Report(library, f"{count:,} connections at once")
    report.add("bytes compared", f"{count * (ROUNDS + 1) * MESSAGE:,}")
    for crowd, held, left in zip(crowds, at_once, after, strict=True):
        report.add("server before", crowd.before)
        report.add("client and server with all connections", held)
        report.add("server behind them", left)
    report.add("broker before: descriptors, KiB", f"{brokers.descriptors}, {brokers.memory}")
    report.add("broker with all connections", broker_at_once)
    report.add("broker behind them", broker_after)
    report.counts(Tally(), brokers)
    report.keep(request)
