"""What a person reads fits into 80 columns, whatever the programs say."""

from __future__ import annotations

import re

import pytest

from loopfuse._messages import EndRow, Row
from loopfuse._quantities import amount, size, time_span
from loopfuse._top.detail import detail
from loopfuse._top.watching import Line, View, Watch
from loopfuse._top.wording import WIDTH, heading, line_text, summary
from top.made_up import flow, plain, row, waits

HUGE = 2**64 - 1


def seen(before: Row, after: Row) -> Line:
    watch = Watch()
    watch.look([before], 1.0)
    (line,) = watch.look([after], 1.1)
    return line


def liar() -> Row:
    """Everything as large as can be."""
    most = waits(
        sleeping=True,
        sleeps=HUGE,
        rings=HUGE,
        spins_paid=HUGE,
        spins_vain=HUGE,
        wakes=[2**32 - 1] * 8,
        wake_seconds=HUGE / 1e9,
    )
    both = flow(HUGE, 4 << 20, most, most)
    name = "\x1b[31m\N{SNOWMAN}" + "x" * 10
    end = EndRow(2**31, name, 2**32 - 1, "fd00:1111:2222:3333:4444:5555:6666:7777", 65535)
    return row(
        10**9, HUGE, HUGE, client=end, server=end, to_server=both, to_client=both, detail="d" * 30
    )


@pytest.mark.parametrize("after", [row(), plain(), liar()], ids=["usual", "plain", "liar"])
@pytest.mark.parametrize("pairs", [False, True])
def test_no_line_is_wider_than_a_terminal(after: Row, pairs: bool) -> None:
    before = row(after.id)
    line = seen(before, after)
    lines = [heading(pairs=pairs), line_text(line, pairs=pairs), *detail(line)]
    lines += summary(View([line], "12:00:00", None, False))
    for text in lines:
        assert len(text) <= WIDTH, text
        assert "\x1b" not in text


def test_the_columns_stand_under_their_names() -> None:
    after = row(
        3,
        sent=1500,
        received=10,
        to_server=flow(100, 2 << 20, waits(wakes=[0, 0, 1, 0, 0, 0, 0, 0], wake_seconds=2e-5)),
        to_client=flow(1, 0, waits(sleeping=True)),
    )
    text = line_text(seen(row(3), after))
    names = heading().split()
    assert " ".join(names) == "ID CLIENT>SERVER B/S MSG/S BYTES WAKE FILL CLI SRV"
    assert " ".join(text.split()) == "3 asker>answerer 14.7K 1.0k 1.5K 20.0us 50% sleep -"
    ends = [word.end() for word in re.finditer(r"\S+", heading())]
    assert ends[2:] == [word.end() for word in re.finditer(r"\S+", text)][2:]


def test_one_that_is_plain_says_why() -> None:
    assert "plain: no-counterpart" in line_text(seen(plain(), plain()))


def test_detail_tells_of_one_without_rings() -> None:
    assert detail(seen(plain(), plain()))[-1] == "It has no rings: its bytes travel by TCP."


def test_detail_draws_how_long_wake_ups_took() -> None:
    after = row(to_server=flow(reader=waits(wakes=[0, 1, 2, 0, 0, 0, 0, 0], wake_seconds=1e-4)))
    bars = [line for line in detail(seen(row(), after)) if "#" in line]
    assert [bar.split()[:3] for bar in bars] == [
        ["up", "to", "10.0us"],
        ["up", "to", "25.0us"],
    ]
    assert bars[1].count("#") == 2 * bars[0].count("#")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0K"), (102300, "99.9K"), (1 << 20, "1.0M"),
     (5678901, "5.4M"), (999 << 30, "999G"), (HUGE, "16.0E")],
)  # fmt: skip
def test_sizes(value: int, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.2"), (12.4, "12"), (999, "999"), (1000, "1.0k"), (11.3e6, "11.3M"),
     (999_960, "1.0M"), (123e9, "123G")],
)  # fmt: skip
def test_amounts(value: float, text: str) -> None:
    assert amount(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0ns"), (850e-9, "850ns"), (12.34e-6, "12.3us"), (250e-6, "250us"), (4e-3, "4.0ms"),
     (1.5, "1.5s"), (5000.0, "5000s")],
)  # fmt: skip
def test_times(value: float, text: str) -> None:
    assert time_span(value) == text
