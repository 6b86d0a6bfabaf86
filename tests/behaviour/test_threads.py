"""One connection, many threads at each end; also under ThreadSanitizer, with the programs
instrumented too (its runtime has to come with the program, not with a preloaded library).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from two_ends import same

from broker_fixtures import BrokerProcess
from conftest import PROGRAMS, sanitizer_build
from loopfuse._control import order_defuse
from loopfuse._messages import Row
from sessions import Session, free_port, is_of_this_test

BYTES = 4_000_000
WRITERS = 3


def share_one_connection(session: Session, command: list[str], size: int) -> int:
    """Runs both ends; the port of their connection."""
    port = free_port()
    arguments = [str(port), str(size)]
    with session.server([*command, "server", *arguments], port) as server:
        assert session.run([*command, "client", *arguments]).stdout == "ok\n"
        assert server.wait(30) == 0
    return port


def test_the_program_itself_passes_on_plain_tcp(plain: Session, programs: Path) -> None:
    share_one_connection(plain, [str(programs / "shared")], BYTES)


def test_threads_share_a_connection(fused: Session, programs: Path) -> None:
    port = share_one_connection(fused, [str(programs / "shared")], BYTES)
    (row,) = fused.fused_rows(port)
    assert row.bytes_to_server + row.bytes_to_client > BYTES * WRITERS


def test_threads_share_a_connection_that_is_defused(lazily_fused: Session, programs: Path) -> None:
    port, size, broker = free_port(), 60_000_000, lazily_fused.broker
    assert broker is not None
    command = str(programs / "shared")
    with lazily_fused.server([command, "server", str(port), str(size)], port) as server:
        client = subprocess.Popen(
            [command, "client", str(port), str(size)],
            env=lazily_fused.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        rows: list[Row] = []
        while client.poll() is None and not any(row.bytes_to_server > size // 10 for row in rows):
            rows = lazily_fused.fused_rows(port)
        order_defuse(broker.path, [row.id for row in rows])
        said, _ = client.communicate(timeout=60)
        assert (said, client.returncode, server.wait(30)) == ("ok\n", 0, 0)
    rows = [row for row in broker.rows() if row.server.port == port]
    (row,) = filter(is_of_this_test, rows)
    assert 0 < row.bytes_to_server < size * WRITERS


@pytest.fixture(scope="module")
def watched_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`stress` and `shared`, under ThreadSanitizer."""
    out = tmp_path_factory.mktemp("watched")
    for name in ("stress", "shared"):
        flags = ["-O1", "-g", "-fsanitize=thread", "-pthread"]
        source = str(PROGRAMS / f"{name}.c")
        subprocess.run(["gcc", *flags, "-o", str(out / name), source], check=True)
    return out


@pytest.fixture(params=[False, True], ids=["lazy", "eager"])
def watched(
    request: pytest.FixtureRequest, session_broker: BrokerProcess
) -> tuple[Session, list[str]]:
    """A session, and what to put before a command."""
    library = sanitizer_build("LOOPFUSE_TSAN_LIBRARY")
    session = Session.under(library, session_broker, eager=request.param)
    # Only our own programs have its runtime; no tool on the way there may load the library.
    del session.environment["LD_PRELOAD"]
    session.environment["TSAN_OPTIONS"] = "exitcode=66"
    # The TSan of Debian 12's gcc can't live with as much address randomisation as newer
    # kernels do.
    return session, ["setarch", "-R", "env", f"LD_PRELOAD={library}"]


def test_threads_that_share_a_connection_do_not_race(
    watched: tuple[Session, list[str]], watched_programs: Path
) -> None:
    session, prefix = watched
    port = share_one_connection(session, [*prefix, str(watched_programs / "shared")], BYTES // 8)
    (row,) = session.fused_rows(port)
    assert row.bytes_to_server + row.bytes_to_client > BYTES // 8


def test_threads_of_many_connections_do_not_race(
    watched: tuple[Session, list[str]], watched_programs: Path
) -> None:
    session, prefix = watched
    port, command = free_port(), [*prefix, str(watched_programs / "stress")]
    with session.server([*command, "server", str(port), "4"], port) as server:
        client = [*command, "client", str(port), "4", "3000000", "9"]
        assert session.run(client).stdout == "ok\n"
        assert server.wait(30) == 0
    assert session.fused_rows(port)


@pytest.mark.parametrize("how", ["epoll", "poll"])
@pytest.mark.parametrize("what", ["shutdown", "buffer", "unsent", "low-water"])
def test_a_thread_that_sleeps_hears_of_what_another_one_changes(
    plain: Session, fused: Session, programs: Path, what: str, how: str
) -> None:
    assert same(plain, fused, programs / "wait_changes", f"{what}-{how}") == "1, in time\n"


@pytest.mark.parametrize("how", ["epoll", "poll"])
def test_a_thread_that_fell_asleep_on_a_plain_socket_hears_of_it_once_it_is_fused(
    plain: Session, fused: Session, programs: Path, how: str
) -> None:
    said = same(plain, fused, programs / "plain_sleepers", how, timeout=180)
    assert said == "every answer was heard\n"


@pytest.mark.parametrize(
    "how", ["recv_alone", "poll_alone", "recv_and_poll", "recv_and_epoll", "poll_and_epoll"]
)
def test_many_threads_that_wait_for_one_socket_rest_between_its_bytes(
    plain: Session, lazily_fused: Session, programs: Path, how: str
) -> None:
    said = same(plain, lazily_fused, programs / "herd", how)
    assert said == "each byte was answered\nthey rest\n"
