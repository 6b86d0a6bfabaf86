"""What the library counts beside bytes, seen from the broker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loopfuse._control import fetch_rows
from loopfuse._messages import Row
from sessions import Session, free_port, is_of_this_test

PROGRAM = Path(__file__).parent.parent / "programs" / "counted.py"
SET = PROGRAM.with_name("one_wakes_a_set.py")


def run(session: Session, *script: str) -> Row:
    """Plays the script on one connection; its row when all is said."""
    port = free_port()
    command = [sys.executable, str(PROGRAM), str(port)]
    with session.server([*command, "server", *script], port):
        client = session.start([*command, "client", *script])
        assert client.stdout is not None
        assert client.stdout.readline() == "done\n"
        assert session.broker is not None
        (row,) = (
            row
            for row in fetch_rows(session.broker.path, counters=True)
            if row.server.port == port and is_of_this_test(row)
        )
        client.communicate("\n", timeout=20)
    return row


def test_each_send_is_a_message(eagerly_fused: Session) -> None:
    row = run(eagerly_fused, "send:100:64")
    assert row.to_server is not None and row.to_client is not None
    assert row.bytes_to_server == 6400
    assert row.to_server.messages == 100
    assert row.to_client.messages == 1  # the answer that all has come


def test_a_long_send_is_one_message(eagerly_fused: Session) -> None:
    row = run(eagerly_fused, "send:3:200000")
    assert row.to_server is not None
    assert row.to_server.messages == 3


@pytest.mark.parametrize("how", ["block", "poll", "epoll"])
def test_a_sleeper_is_counted_and_so_is_its_bell(eagerly_fused: Session, how: str) -> None:
    """Twenty messages, each so late that spinning can't do."""
    row = run(eagerly_fused, "late:20:1", f"wait:{how}")
    assert row.to_server is not None
    reader = row.to_server.reader
    assert 15 <= reader.sleeps <= 60
    assert 15 <= reader.rings <= reader.sleeps
    assert sum(reader.wakes) == pytest.approx(reader.rings, abs=2)
    assert 0 < reader.wake_seconds < 10
    writer = row.to_server.writer
    assert (writer.sleeps, writer.rings, writer.sleeping) == (0, 0, False)


def test_who_sleeps_is_seen(eagerly_fused: Session) -> None:
    row = run(eagerly_fused, "send:1:1")
    assert row.to_server is not None
    assert row.to_server.reader.sleeping  # the server waits for more
    assert row.to_server.unread == 0


def test_a_writer_without_room_is_counted(eagerly_fused: Session) -> None:
    row = run(eagerly_fused, "send:1:1", "flood:16000000")
    assert row.to_server is not None
    writer = row.to_server.writer
    assert writer.sleeps >= 1
    assert writer.rings >= 1


def test_spins_that_pay_and_those_in_vain_are_told_apart(
    eagerly_fused: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(eagerly_fused.environment, "LOOPFUSE_SPIN_US", "2000")
    row = run(eagerly_fused, "pingpong:2000", "late:20:1")
    assert row.to_server is not None and row.to_client is not None
    for waits in (row.to_server.reader, row.to_client.reader):
        assert waits.spins_paid >= 5  # on a machine that others use as well
    assert row.to_server.reader.spins_vain >= 1


@pytest.mark.parametrize("others", [1, 500])
def test_who_is_awake_is_not_rung_for(eagerly_fused: Session, others: int) -> None:
    """It slept with all flags up, and takes the others' down when the first has woken it."""
    process = eagerly_fused.start([sys.executable, str(SET), str(others)])
    assert process.stdout is not None and eagerly_fused.broker is not None
    said, *ports = process.stdout.readline().split()
    assert said == "done"
    rows = {row.client.port: row for row in fetch_rows(eagerly_fused.broker.path, counters=True)}
    process.communicate("\n", timeout=20)
    channels = [rows[int(port)].to_server for port in ports]
    fused = [channel for channel in channels if channel is not None]
    assert len(fused) == 1 + others
    assert all(channel.messages >= 15 for channel in fused)
    first, *rest = (channel.reader.rings for channel in fused)
    assert first >= 5
    assert sum(rest) <= 3 * others
