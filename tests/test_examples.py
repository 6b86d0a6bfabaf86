"""The programs in examples/ do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess
from sessions import Session

pytest_plugins = ["broker_fixtures"]
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def session(library: Path, broker: BrokerProcess) -> Session:
    return Session.under(library, broker, eager=False)


def example(session: Session, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run as itself, not under the library, unless the session has it."""
    return session.run([sys.executable, str(EXAMPLES / name), *arguments], check=False)


@pytest.fixture
def asking(library: Path, broker: BrokerProcess) -> Session:
    """A plain environment in which the test's broker is the user's."""
    return Session({"LOOPFUSE_BROKER": str(broker.path), "LOOPFUSE_LIBRARY": str(library)}, None)


def test_a_pair_is_watched(asking: Session) -> None:
    done = example(asking, "watch_a_pair.py")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("fused: ")
    assert second == "defused: request"


@pytest.mark.parametrize(("under_it", "word"), [(True, "fused"), (False, "plain TCP")])
def test_a_program_asks_of_itself(
    session: Session, asking: Session, under_it: bool, word: str
) -> None:
    done = example(session if under_it else asking, "am_i_fused.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"at first: plain TCP\nafter 2000 round trips: {word}\n"


def test_a_run_is_reported(asking: Session) -> None:
    done = example(asking, "run_and_report.py", "sh", "-c", "exit 3")
    assert (done.returncode, done.stdout) == (3, "0 connections the broker heard of\n")
    done = example(asking, "run_and_report.py", "no-such-program")
    assert done.returncode == 2
    assert "no-such-program: no such program on PATH" in done.stderr
    assert example(asking, "run_and_report.py").returncode == 1


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in tested
