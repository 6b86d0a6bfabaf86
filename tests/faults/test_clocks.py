"""The wall clock jumps: nothing waits by it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess
from faults.control import Control
from faults.dialogs import Conditions, Jumps, Stage
from sessions import Session

ROOT = Path(__file__).parents[2]
STAMPS = {
    "csrc/tap.c",
    "src/loopfuse/_tap/session.py",
    "src/loopfuse/_broker_state/ledger.py",
    "src/loopfuse/_broker_state/taps.py",
    "src/loopfuse/_broker_state/exposition.py",
    "src/loopfuse/_cli/tap.py",
}
"""Who reads the wall clock, to tell a person the time."""
READS_IT = re.compile(
    r"clock_gettime\(CLOCK_REALTIME|gettimeofday\(|\btime\.time(_ns)?\(|datetime\.now"
)
WAITS_BY_IT = {
    "pthread_mutex_timedlock", "pthread_cond_timedwait", "sem_timedwait", "mq_timedreceive",
    "mq_timedsend", "gettimeofday", "time", "clock_nanosleep", "timer_settime", "setitimer",
}  # fmt: skip


@pytest.mark.parametrize("scenario", ["blocking", "epolled"])
def test_dialogs_go_on_while_the_clock_jumps_by_days(
    stage: Stage, library: Path, tmp_path: Path, scenario: str
) -> None:
    """That of both programs and of the broker."""
    expected = stage.act(Session({}, None), scenario).transcript
    with Control(tmp_path / "control") as control, Jumps(control) as jumps:
        prefix = control.prefix(stage.injector)
        options = ("--idle-exit", "0", "--log-level", "error")
        broker = BrokerProcess(tmp_path / "broker.sock", *options, prefix=prefix)
        try:
            for eager in (False, True):
                session = Session.under(library, broker, eager=eager)
                outcome = stage.act(session, scenario, Conditions(jumping=True))
                assert outcome.transcript == expected
                assert outcome.fused
        finally:
            assert broker.stop()[0] == 0
    assert jumps.count > 10


def test_only_stamps_are_taken_from_the_wall_clock() -> None:
    sources = [*ROOT.glob("csrc/*.[ch]"), *ROOT.glob("src/loopfuse/**/*.py")]
    readers = {str(file.relative_to(ROOT)) for file in sources if READS_IT.search(file.read_text())}
    assert {name for name in readers if "/_bench/" not in name} == STAMPS


def test_the_library_calls_nothing_that_waits_by_the_wall_clock(library: Path) -> None:
    table = subprocess.run(
        ["nm", "-D", "-u", str(library)], capture_output=True, text=True, check=True
    )
    called = {line.split()[-1].partition("@")[0] for line in table.stdout.splitlines()}
    assert "clock_gettime" in called
    assert not called & WAITS_BY_IT
