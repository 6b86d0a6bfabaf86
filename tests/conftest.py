"""What every test may rely on: the library under test, a broker of the session's own."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess
from holdings import children_of
from loopfuse._preload import library_path
from sessions import BROKEN_INVARIANTS, Session

PROGRAMS = Path(__file__).parent / "programs"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the long tests too, at full length")
    parser.addoption(
        "--loading", action="store_true", help="leave out tests that load no preload library"
    )
    parser.addoption("--soak-minutes", type=float, metavar="N", help="run the soak for so long")
    parser.addoption("--soak-seed", type=int, metavar="S", default=1, help="its random choices")
    parser.addoption("--in-a-row", type=int, metavar="N", help="make so many connections in a row")
    parser.addoption("--at-once", type=int, metavar="N", help="hold so many connections at once")
    parser.addoption("--hunt", type=int, metavar="N", help="run N random programs as well")
    parser.addoption("--program", metavar="P", help="a program that a hunt found, as printed")
    parser.addoption(
        "--faults", choices=("sample", "all"), default="sample", help="inject all faults there are"
    )
    parser.addoption("--hunt-seed", type=int, metavar="S", help="the random programs of a hunt")
    parser.addoption("--garbage", type=int, metavar="N", help="N rounds with a hostile peer")
    parser.addoption("--garbage-seed", type=int, metavar="S", help="the first of them")


def _loads(item: pytest.Item) -> bool:
    return "library" in getattr(item, "fixturenames", ())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--loading"):
        config.hook.pytest_deselected(items=[item for item in items if not _loads(item)])
        items[:] = [item for item in items if _loads(item)]
    if config.getoption("--soak"):
        return
    skip = pytest.mark.skip(reason="takes minutes; run it with --soak")
    for item in items:
        if item.get_closest_marker("soak"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def library() -> Path:
    path = library_path()
    assert path.is_file(), f"{path} is missing: scripts/build-variant dev"
    return path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory that every user can enter, and with room in its name for a socket's; pytest's
    own has neither."""
    folder = Path(tempfile.mkdtemp(prefix="loopfuse-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def session_broker() -> Iterator[BrokerProcess]:
    """One broker for all fused runs; at the end it must hold no descriptor of a pair."""
    # Programs that drop privileges (PostgreSQL, nginx) must reach it. Not in pytest's own
    # folder: each run that starts closes that one to others again.
    with tempfile.TemporaryDirectory(prefix="loopfuse-broker-") as directory:
        Path(directory).chmod(0o755)
        options = ("--idle-exit", "0", "--log-level", "error")
        broker = BrokerProcess(Path(directory) / "broker.sock", *options)
        yield broker
        code, said = broker.stop()
        assert code == 0, said
        assert not broker.path.exists()


@pytest.fixture
def plain() -> Session:
    """Runs programs as they are."""
    return Session({}, None)


@pytest.fixture(params=["lazy", "eager"])
def fused(request: pytest.FixtureRequest, library: Path, session_broker: BrokerProcess) -> Session:
    """Runs programs under the library, in both pairing policies."""
    return Session.under(library, session_broker, eager=request.param == "eager")


@pytest.fixture
def lazily_fused(library: Path, session_broker: BrokerProcess) -> Session:
    """Runs programs under the library as `loopfuse run` does by default."""
    return Session.under(library, session_broker, eager=False)


@pytest.fixture
def eagerly_fused(library: Path, session_broker: BrokerProcess) -> Session:
    """Runs programs under the library as `loopfuse run --eager` does."""
    return Session.under(library, session_broker, eager=True)


@pytest.fixture(scope="session")
def programs() -> Path:
    """The C programs of tests/programs, compiled; what has not changed since, by an earlier run."""
    out = Path(__file__).parent.parent / "build" / "test-programs"
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # against a run beside this one
        command = ["make", "--silent", "--jobs=2", "-C", str(PROGRAMS), f"OUT={out}"]
        subprocess.run(command, check=True)
    return out


def tool(name: str) -> str:
    """The path of a program that a test needs; without it the test is skipped, in CI failed."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"{name} is missing: scripts/debian test")
    pytest.skip(f"{name} is not installed: scripts/debian test")


def sanitizer_build(variable: str) -> Path:
    """The library that this variable names; without it the test is skipped, in CI failed."""
    found = os.environ.get(variable)
    if found:
        return Path(found)
    if os.environ.get("CI"):
        pytest.fail(f"{variable} is not set: scripts/test sets it")
    pytest.skip(f"{variable} names no sanitizer build; scripts/test makes one")


@pytest.fixture(autouse=True, scope="session")
def no_invariant_broken() -> Iterator[None]:
    """Also in programs whose end no test minds, and in servers that say nothing."""
    BROKEN_INVARIANTS.parent.mkdir(exist_ok=True)
    BROKEN_INVARIANTS.touch()
    BROKEN_INVARIANTS.chmod(0o666)  # PostgreSQL runs as another user
    before = BROKEN_INVARIANTS.stat().st_size
    yield
    broken = BROKEN_INVARIANTS.read_bytes()[before:].decode(errors="replace")
    assert not broken, broken


@pytest.fixture(autouse=True, scope="session")
def nothing_left_behind() -> Iterator[None]:
    """The leak gate: no process of ours outlives the run."""
    yield
    left = children_of(os.getpid())
    assert not left, f"still running: {left}"
