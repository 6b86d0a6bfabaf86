"""The full screen, without a terminal: keys in, text out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker_fixtures import PATIENCE, BrokerProcess, libraries, tcp_pair
from loopfuse import _wire as wire
from loopfuse._errors import NoBrokerError
from loopfuse._messages import Row
from loopfuse._reasons import Reason
from loopfuse._segments import read_segment
from loopfuse._top.ordering import sort_named
from loopfuse._top.source import Source
from top.made_up import flow, plain, row

pytest.importorskip("textual")

from loopfuse._top.screen import Connections, Detail, Top

pytest_plugins = ["broker_fixtures"]
SIZE = (80, 24)


class Story:
    """What the broker says, look after look; the last is said for ever."""

    def __init__(self, *looks: list[Row] | None) -> None:
        self._looks = list(looks)
        self.defused: list[int] = []

    def fetch(self) -> list[Row]:
        rows = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if rows is None:
            raise NoBrokerError("no broker is running at here")
        return rows

    def order(self, number: int) -> str:
        self.defused.append(number)
        return f"Connection {number} goes back."


def play(story: Story, act: Callable[[Any, Top], Awaitable[None]], **options: Any) -> None:
    source = Source(Path("here"), story.fetch)
    choice: dict[str, Any] = {"pairs": False, "delay": 0.1, **options}

    async def run() -> None:
        app = Top(source, sort_named("rate"), "", order=story.order, **choice)
        async with app.run_test(size=SIZE) as pilot:
            await settle(pilot)
            await act(pilot, app)

    asyncio.run(run())


async def settle(pilot: Any) -> None:
    """Three looks later, or when it has left."""
    for _ in range(3):
        seen = pilot.app._view
        await until(lambda seen=seen: pilot.app._view is not seen or not pilot.app.is_running)
    await pilot.pause()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for it; not for ever, so what is asserted next says what is amiss."""
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)


async def shows(app: Top, text: str) -> None:
    await until(lambda: any(text in line for line in screen(app)))
    assert any(text in line for line in screen(app)), screen(app)


def screen(app: Top) -> list[str]:
    """The lines that a person sees."""
    width, height = app.size
    lines = app.screen._compositor.render_strips()
    assert len(lines) in (0, height)  # nothing yet of one that has just come up
    text = ["".join(segment.text for segment in strip) for strip in lines]
    assert all(len(line) <= width for line in text)
    return text


TWO = [
    row(1, sent=1000, to_server=flow(messages=3)),
    row(2, sent=9000, to_server=flow(messages=1)),
]


def first_cells(app: Top) -> list[str]:
    return [line.split()[0] for line in screen(app)[3:] if line[:5].strip().isdigit()]


def test_connections_stand_in_order_and_keys_change_it() -> None:
    async def act(pilot: Any, app: Top) -> None:
        assert first_cells(app) == ["2", "1"]
        for key, order in (("i", ["1", "2"]), ("b", ["2", "1"]), ("i", ["1", "2"])):
            await pilot.press(key)
            assert first_cells(app) == order

    play(Story([], TWO), act)


def test_a_filter_is_typed_and_entered() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("slash", *"40002", "enter")
        assert first_cells(app) == ["2"]
        assert "'40002'" in screen(app)[0]
        await pilot.press("slash", *("backspace",) * 5, "enter")
        assert len(first_cells(app)) == 2

    play(Story(TWO), act)


def test_a_filter_is_left_by_escape_and_says_so() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("slash", *"40002")
        assert "esc show all" in screen(app)[-1]
        await pilot.press("escape")
        assert len(first_cells(app)) == 2
        assert "esc show all" not in screen(app)[-1]
        await pilot.press("p")  # a key again, no letter of the text
        assert first_cells(app) == ["2"]

    play(Story(TWO), act)


def test_a_pair_is_not_defused_as_a_whole_and_says_so() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("p", "d")
        assert any("One connection at a time" in line for line in screen(app))

    play(Story(TWO), act)


def test_pairs_of_programs_are_one_line() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("p")
        assert first_cells(app) == ["2"]
        await pilot.press("enter")  # opens what is behind it
        assert len(first_cells(app)) == 2

    play(Story(TWO), act)


def test_detail_is_opened_and_closed() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("down", "enter")
        await shows(app, "connection 1, fused")
        await pilot.press("escape")
        await shows(app, "loopfuse top")

    play(Story([], TWO), act)


def test_a_look_before_the_detail_is_drawn_harms_nothing() -> None:
    async def act(pilot: Any, app: Top) -> None:
        line = app.query_one(Connections).current
        assert line is not None and app._view is not None
        early = Detail(line)
        early.follow(app._view)
        app.push_screen(early)
        await shows(app, "connection 2, fused")

    play(Story([], TWO), act)


def test_without_colours_there_are_none_and_all_else_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def act(pilot: Any, app: Top) -> None:
        assert first_cells(app) == ["2", "1"]
        styles = [
            segment.style
            for strip in app.screen._compositor.render_strips()
            for segment in strip
            if segment.style is not None
        ]
        assert not [style for style in styles if style.color or style.bgcolor]
        assert any(style.reverse for style in styles)
        await pilot.press("enter")
        assert "connection" in screen(app)[0]

    play(Story([], TWO), act)


def test_a_look_while_the_detail_comes_or_goes_ends_nothing() -> None:
    """It is the screen already, or still, and has nothing to write to."""

    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("enter")
        await app.screen.query("Static").remove()
        await settle(pilot)
        await pilot.press("escape")
        assert "loopfuse top" in screen(app)[0]

    play(Story([], TWO), act)


def test_a_look_while_the_program_ends_is_none() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await app.screen.query_one("#summary").remove()
        await settle(pilot)

    play(Story([], TWO), act)


@pytest.mark.parametrize("answer", ["y", "n", "escape"])
@pytest.mark.parametrize("where", ["list", "detail"])
def test_defusing_takes_a_yes(answer: str, where: str) -> None:
    story = Story([], TWO)

    async def act(pilot: Any, app: Top) -> None:
        if where == "detail":
            await pilot.press("enter")
        await pilot.press("d")
        await shows(app, "back to plain TCP?")
        await pilot.press(answer)
        await until(lambda: bool(story.defused) or answer != "y")
        await settle(pilot)
        assert story.defused == ([2] if answer == "y" else [])
        if where == "detail":
            await pilot.press("escape")
            await shows(app, "loopfuse top")
        assert any("goes back." in line for line in screen(app)) == (answer == "y")

    play(story, act)


def test_the_cursor_stays_on_its_connection() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("i", "enter")  # the cursor was on 2, which is now the second
        await shows(app, "connection 2")

    play(Story([], TWO), act)


def test_more_connections_than_lines_can_be_scrolled() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("i", "end", "enter")
        await shows(app, "connection 200")
        await pilot.press("escape")
        assert first_cells(app)[-1] == "200"
        await pilot.press("home")
        assert first_cells(app)[0] == "1"

    play(Story([row(i) for i in range(1, 201)]), act)


def test_it_waits_for_a_broker_and_shows_it_when_it_comes() -> None:
    async def act(pilot: Any, app: Top) -> None:
        for _ in range(20):
            if first_cells(app):
                break
            assert "no broker is running at here; waiting" in screen(app)[1]
            await settle(pilot)
        assert first_cells(app) == ["2", "1"]

    play(Story(None, None, None, None, None, None, None, None, TWO), act)


def test_what_was_last_seen_stays_while_the_broker_is_away() -> None:
    async def act(pilot: Any, app: Top) -> None:
        assert "no broker" in screen(app)[1]
        assert len(first_cells(app)) == 2

    play(Story(TWO, None), act)


def test_one_that_is_over_says_so_in_its_detail() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await pilot.press("enter")
        for _ in range(20):
            await settle(pilot)
            if any("It is over." in line for line in screen(app)):
                return
        pytest.fail("it never said so")

    play(Story(*([[row(1)]] * 30), []), act)


def test_it_leaves_after_as_many_intervals_as_asked_for() -> None:
    async def act(pilot: Any, app: Top) -> None:
        await until(lambda: not app.is_running)
        assert not app.is_running, "it is still there"

    play(Story(TWO), act, count=2)


def test_a_name_can_not_break_the_screen() -> None:
    odd = plain(1, client=row().client.__class__(5, "[red]\x1b[2J", 0, "127.0.0.1", 1))

    async def act(pilot: Any, app: Top) -> None:
        assert any("[red]?[2J" in line for line in screen(app))

    play(Story([odd]), act)


def test_a_yes_reaches_the_broker(broker: BrokerProcess) -> None:
    async def run() -> list[str]:
        source = Source(broker.path)
        app = Top(source, sort_named("rate"), "", pairs=False, delay=0.1)
        async with app.run_test(size=SIZE) as pilot:
            await until(lambda: bool(first_cells(app)))
            await pilot.press("d")
            await shows(app, "back to plain TCP?")
            await pilot.press("y")
            await until(lambda: any("goes back" in line for line in screen(app)))
            return screen(app)

    with libraries(broker.path, 2) as (one, other), tcp_pair() as pair:
        one.claim(pair.client, wire.Side.CLIENT)
        other.claim(pair.server, wire.Side.SERVER)
        fd = one.receive().fds[0]
        other.receive()
        said = asyncio.run(run())
        assert any("Connection 1 goes back to TCP" in line for line in said)
        assert read_segment(fd).broker_wish == Reason.REQUEST
