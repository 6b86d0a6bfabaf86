"""Two looks at the broker's rows become rates."""

from __future__ import annotations

import pytest

from loopfuse._messages import Row
from loopfuse._top.ordering import arrange, sort_named
from loopfuse._top.watching import Line, Watch
from top.made_up import flow, plain, row, waits


def between(*looks: list[Row], seconds: float = 2.0) -> list[Line]:
    """The lines of the last of these looks."""
    watch = Watch()
    for number, rows in enumerate(looks):
        lines = watch.look(rows, 1000 + number * seconds)
    return lines


def test_the_first_look_has_no_rates() -> None:
    (line,) = between([row(sent=500)])
    assert (line.to_server, line.rate, line.bytes) == (None, 0, 500)


def test_rates_are_what_came_between_two_looks() -> None:
    before = row(sent=1000, received=10, to_server=flow(messages=5))
    after = row(sent=3000, received=30, to_server=flow(messages=105))
    (line,) = between([before], [after])
    assert line.to_server is not None
    assert line.to_server.bytes == 1000
    assert (line.rate, line.messages, line.bytes) == (1010, 50, 3030)


def test_a_connection_that_is_new_since_the_last_look_counts_from_zero() -> None:
    (line,) = between([], [row(sent=800)])
    assert line.rate == 400


def test_the_number_of_one_that_is_over_is_not_confused_with_its_successor() -> None:
    (line,) = between([row(sent=10**9)], [row(sent=800, since="2026-11-25T13:00:00.000Z")])
    assert line.rate == 400


def test_counters_that_go_down_are_no_negative_rates() -> None:
    liar = flow(messages=7, reader=waits(sleeps=9, wake_seconds=3.0))
    (line,) = between([row(sent=10, to_server=liar)], [row(sent=3)])
    assert line.to_server is not None
    assert (line.rate, line.messages) == (0, 0)
    assert line.to_server.reader.sleeps == 0


def test_classes_of_wake_ups_may_begin_anew() -> None:
    before = flow(reader=waits(wakes=[2**32 - 1] + [0] * 7))
    after = flow(reader=waits(wakes=[3] + [0] * 7))
    (line,) = between([row(to_server=before)], [row(to_server=after)])
    assert line.wake_ups == 2


def test_the_wake_up_is_a_mean_over_both_directions() -> None:
    one = flow(reader=waits(wakes=[0, 0, 0, 3, 0, 0, 0, 0], wake_seconds=120e-6))
    other = flow(writer=waits(wakes=[0, 0, 0, 0, 1, 0, 0, 0], wake_seconds=80e-6))
    (line,) = between([row()], [row(to_server=one, to_client=other)])
    assert line.wake == pytest.approx(50e-6)


@pytest.mark.parametrize(
    ("incoming", "outgoing", "expected"),
    [
        ({}, {}, "-"),
        ({"sleeping": True}, {}, "sleep"),
        ({}, {"sleeping": True}, "sleep"),
        ({"spins_paid": 9}, {}, "spin"),
        ({"spins_paid": 9, "sleeping": True}, {}, "spin"),
        ({"spins_vain": 9, "sleeping": True}, {}, "sleep"),
        ({"spins_paid": 5, "sleeps": 6}, {}, "sleep"),
        ({"spins_paid": 5}, {"sleeps": 4}, "spin"),
        ({"spins_vain": 5, "sleeps": 4}, {}, "sleep"),
        ({"spins_vain": 9}, {}, "spin"),
        ({}, {"spins_paid": 1}, "spin"),
    ],
)
def test_what_an_end_does(
    incoming: dict[str, int], outgoing: dict[str, int], expected: str
) -> None:
    """The server reads what goes to it, and writes what goes to the client."""
    after = row(to_server=flow(reader=waits(**incoming)), to_client=flow(writer=waits(**outgoing)))
    (line,) = between([row()], [after])
    assert (line.server, line.client) == (expected, "-")


def test_ring_fill_is_that_of_the_fuller_ring() -> None:
    after = row(to_server=flow(unread=1 << 20), to_client=flow(unread=2 << 20))
    (line,) = between([row()], [after])
    assert line.fill == 0.5


def test_one_that_closed_is_shown_once_more() -> None:
    watch = Watch()
    watch.look([row(sent=10)], 1.0)
    (line,) = watch.look([row(sent=110, state="closed")], 2.0)
    assert line.rate == 100
    assert watch.look([row(sent=110, state="closed")], 3.0) == []


def test_after_another_broker_has_come_nothing_has_a_past() -> None:
    watch = Watch()
    watch.look([row(sent=10)], 1.0)
    watch.forget()
    (line,) = watch.look([row(sent=10**9)], 2.0)
    assert watch.interval is None
    assert line.rate == 0


def test_sorting_by_each_key() -> None:
    slow_wake = flow(reader=waits(wakes=[1] + [0] * 7, wake_seconds=1.0))
    rows = [
        row(1, sent=10, to_server=flow(messages=50)),
        row(2, sent=30, to_server=flow(unread=9)),
        row(3, sent=20, to_server=slow_wake),
    ]
    lines = between([], rows)
    first = {name: arrange(lines, sort_named(name))[0].row.id for name in ("rate", "bytes", "id")}
    assert first == {"rate": 2, "bytes": 2, "id": 1}
    assert arrange(lines, sort_named("messages"))[0].row.id == 1
    assert arrange(lines, sort_named("fill"))[0].row.id == 2
    assert arrange(lines, sort_named("wake"))[0].row.id == 3


@pytest.mark.parametrize(
    ("text", "ids"),
    [("ASKER", [1, 2]), ("no-counter", [2]), ("127.0.0.1:40001", [1]), ("102", [2]), ("zz", [])],
)
def test_a_filter_finds_names_addresses_and_reasons(text: str, ids: list[int]) -> None:
    lines = between([row(1), plain(2)])
    assert [line.row.id for line in arrange(lines, sort_named("id"), text)] == ids


def test_pairs_of_programs_are_added_up() -> None:
    rows = [plain(1), row(2, sent=20), row(3, sent=40)]
    (line,) = arrange(between([], rows), sort_named("rate"), pairs=True)
    assert (line.connections, line.rate, line.bytes) == (3, 30, 60)
    assert line.row.state == "fused"
