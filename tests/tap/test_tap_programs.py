"""What a tap sees of programs: all that they send, once, in order, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_fixtures import eventually
from loopfuse._control import order_defuse
from sessions import Session
from tap.captures import MARKS, assert_clean, capturing, digests, fields, reassembled, tshark
from tap.parties import parties


@pytest.mark.parametrize("way", ["sizes", "forks", "sendfile"])
def test_what_was_captured_is_what_was_sent(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path, way: str
) -> None:
    file = tmp_path / "c.pcapng"
    with capturing(broker_path, file) as capture, parties(eagerly_fused, way) as both:
        if way == "forks":
            both.await_pause()
            both.go_on()
        sent = both.digests()
    assert (capture.number("lost"), capture.number("bytes missing")) == (0, 0)
    assert digests(reassembled(file)) == sent
    assert_clean(file)


def test_a_connection_begins_with_syn_and_ends_with_fin(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with capturing(broker_path, file), parties(eagerly_fused, "sizes") as both:
        both.digests()
    flags = [row[0] for row in fields(file, ["tcp.flags.str"])]
    assert [one.count("S") for one in flags[:3]] == [1, 1, 0]
    assert sum("F" in one for one in flags) == 2
    comments = "\n".join(row[0] for row in fields(file, ["frame.comment"]))
    for process in (both.server, both.client):
        assert f"(pid {process.pid})" in comments


def test_threads_that_send_at_once_are_all_seen(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with capturing(broker_path, file), parties(eagerly_fused, "threads") as both:
        both.digests()
    to_server, _ = reassembled(file)
    to_server = to_server[200:]
    assert {letter: to_server.count(letter) for letter in b"ABCD"} == dict.fromkeys(
        b"ABCD", 300_000
    )
    assert_clean(file)


def test_a_tap_that_begins_in_the_middle_sees_what_follows(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with parties(eagerly_fused, "pauses") as both:
        both.await_pause()
        with capturing(broker_path, file) as capture:
            both.go_on()
            both.await_pause()
        before = file.stat().st_size
        both.go_on()
        both.digests()
        assert file.stat().st_size == before
    assert [len(data) for data in reassembled(file)] == [2000, 2000]
    assert capture.number("bytes missing") == 0
    assert_clean(file)
    assert "went through the ring before" in fields(file, ["frame.comment"])[0][0]


def test_bytes_that_go_back_to_tcp_are_not_seen_twice(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with capturing(broker_path, file), parties(eagerly_fused, "pauses") as both:
        both.await_pause()
        (row,) = eagerly_fused.fused_rows(both.port)
        order_defuse(broker_path, [row.id])
        both.go_on()
        both.await_pause()
        both.go_on()
        both.digests()
    # What was sent before is there, what came later went by TCP.
    assert [len(data) for data in reassembled(file)] == [200, 200]
    assert_clean(file)


def test_a_process_that_was_forked_before_the_tap_is_seen_soon(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with parties(eagerly_fused, "grandchild") as both:
        both.await_pause()
        with capturing(broker_path, file):
            both.go_on()
            both.digests()
    _, to_client = reassembled(file)
    assert len(to_client) > 1000
    pids = {row[0] for row in fields(file, ["frame.comment"]) if "sent by" in row[0]}
    assert not any(f"(pid {both.server.pid})" in pid for pid in pids), pids


def test_a_close_with_bytes_unread_is_seen_as_reset(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with capturing(broker_path, file), parties(eagerly_fused, "unread") as both:
        both.digests()
    (reset,) = tshark(file, "-Y", "tcp.flags.reset == 1")
    assert tshark(file, "-Y", MARKS) == [reset]  # which tshark finds remarkable in itself


def test_a_killed_program_gets_its_end_from_the_broker(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with capturing(broker_path, file), parties(eagerly_fused, "killed") as both:
        both.await_pause()
        both.client.wait(20)
        both.server.wait(20)

        def closed() -> bool:
            rows = eagerly_fused.fused_rows(both.port)
            return [row.state for row in rows] == ["closed"]

        eventually(closed, "the broker knows that it is over")
    assert [len(data) for data in reassembled(file)] == [200, 200]
    assert_clean(file)


def test_connections_that_were_not_asked_for_are_left_alone(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with parties(eagerly_fused, "pauses") as one, parties(eagerly_fused, "pauses") as other:
        one.await_pause()
        other.await_pause()
        with capturing(broker_path, file, "--port", str(one.port)):
            one.go_on()
            other.go_on()
            one.await_pause()
            other.await_pause()
        one.go_on()
        other.go_on()
        one.digests()
        other.digests()
    ports = {row[0] for row in fields(file, ["tcp.port"])}
    assert all(str(one.port) in pair.split(",") for pair in ports), ports


def test_a_filter_chooses_packets(
    eagerly_fused: Session, broker_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    with parties(eagerly_fused, "pauses") as both:
        both.await_pause()
        with capturing(broker_path, file, f"tcp src port {both.port} and greater 100"):
            both.go_on()
            both.await_pause()
        both.go_on()
        both.digests()
    rows = fields(file, ["tcp.srcport", "tcp.len"])
    assert rows == [[str(both.port), "100"]] * 20


def test_packets_can_be_cut_off(eagerly_fused: Session, broker_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.pcapng"
    with capturing(broker_path, file, "-s", "16"), parties(eagerly_fused, "sizes") as both:
        both.digests()
    rows = fields(file, ["frame.cap_len", "frame.len", "tcp.len"], "-Y", "tcp.len > 16")
    assert rows and all(int(row[0]) == 40 + 16 for row in rows)
    assert max(int(row[2]) for row in rows) == 32768
    assert_clean(file)
