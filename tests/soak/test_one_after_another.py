"""Connections one after the other, as fast as they go: what they took is given back."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_fixtures import eventually
from holdings import Holdings, holdings_of, uses_segments
from sessions import Session, free_port
from soak.report import Report
from soak.troubles import Brokers
from soak.work import Tally

DEFAULT = 2000
"""Connections, when nobody asks for more."""
FIRST = 500
"""Connections after which every cache is filled: the broker has a row of each, for a minute."""
GROWTH = 4096
"""KiB that a program may take beyond what it took after the first."""
BROKER_GROWTH = 64 * 1024
"""KiB that Python may keep of when most pairs waited for their end to be noticed: 10,000 at once
take 43 MiB (docs/reliability/soak.md)."""


class Client:
    """tests/programs/serial.c, which stops to be looked at."""

    def __init__(self, session: Session, binary: Path, port: int, count: int, messages: int):
        numbers = [str(port), str(FIRST), str(count - FIRST), str(messages)]
        self.process = session.start([str(binary), "client", *numbers])

    def await_word(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{word}\n", self.process.wait(10)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.mark.timeout(0)
@pytest.mark.parametrize(("eager", "messages"), [(True, 1), (False, 20)], ids=["eager", "lazy"])
def test_connections_in_a_row_leave_nothing(
    request: pytest.FixtureRequest,
    library: Path,
    programs: Path,
    brokers: Brokers,
    eager: bool,
    messages: int,
) -> None:
    count = (
        request.config.getoption("--in-a-row") or DEFAULT
    ) // 2  # the other half: the other way
    session = Session.under(library, brokers.present, eager=eager)
    binary, port = programs / "serial", free_port()
    with session.server([str(binary), "server", str(port)], port) as server:
        client = Client(session, binary, port, count, messages)
        pids = {"client": client.process.pid, "server": server.pid, "broker": brokers.present.pid}
        try:
            client.await_word("warm")
            before = settled(pids)
            client.go_on()
            client.await_word("done")
            after = settled(pids)
            client.go_on()
            assert client.process.wait(20) == 0
        finally:
            client.process.kill()
            client.process.communicate()
    brokers.add_up()
    report = Report(library, f"{count:,} connections in a row, {'eager' if eager else 'lazy'}")
    for name in pids:
        report.add(
            f"{name} after the first {FIRST} and at the end", f"{before[name]}, {after[name]}"
        )
    report.counts(Tally(), brokers)
    report.keep(request)
    for name in pids:
        assert after[name].is_back_at(before[name], 0), name
        growth = BROKER_GROWTH if name == "broker" else GROWTH
        assert after[name].memory <= before[name].memory + growth, name
    fused = brokers.counted[("loopfuse_fused_total", ())]
    assert fused > (count * 0.9 if eager else 0)


def settled(pids: dict[str, int]) -> dict[str, Holdings]:
    """No connection is there: the broker has noticed, and holds no memory of a pair."""
    eventually(lambda: not uses_segments(pids["broker"]), "the broker lets go of the last", 20)
    return {name: holdings_of(pid) for name, pid in pids.items()}
