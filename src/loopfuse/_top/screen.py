"""The full screen of ``loopfuse top``. The only module that needs textual.

The list is drawn line by line, only those on the screen: what it costs does not grow with the
number of connections. Asking the broker takes a thread, so that a broker that does not answer
never keeps keys from working.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.color import Color
from textual.containers import VerticalScroll
from textual.events import Resize
from textual.filter import LineFilter
from textual.geometry import Size
from textual.message import Message
from textual.screen import ModalScreen, Screen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Input, Static

from loopfuse._control import order_defuse
from loopfuse._errors import LoopfuseError
from loopfuse._top.detail import detail
from loopfuse._top.ordering import SORTS, Sort, arrange, program, sort_named
from loopfuse._top.source import Source
from loopfuse._top.watching import Line, View
from loopfuse._top.wording import WIDTH, heading, line_text, summary

_KEYS = "r b m w f i sort  p pairs  / filter  enter detail  d defuse  space pause  q quit"
_DRAWN = "#summary, #heading, Connections"
_FILTER_KEYS = "enter keep  esc show all"
_STYLES = {
    "fused": Style(color="green"),
    "plain": Style(color="yellow"),
    "defused": Style(color="yellow"),
    "closed": Style(dim=True),
}
_RESULTS = {
    "defused": "goes back to TCP, each end with its next send",
    "already": "is not fused (any more)",
    "not-found": "is not known to the broker",
    "not-permitted": "belongs to another user",
}
Order = Callable[[int], str]
"""Has a connection defused; what to tell the user."""


class Connections(ScrollView, can_focus=True):
    """The table. The cursor stays on its connection when the order changes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-1000000000)", show=False),
        Binding("end", "move(1000000000)", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """Enter was pressed on a connection."""

        def __init__(self, line: Line) -> None:
            super().__init__()
            self.line = line

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []
        self._cursor = 0
        self._pairs = False

    @property
    def current(self) -> Line | None:
        return self._lines[self._cursor] if self._lines else None

    def show(self, lines: list[Line], *, pairs: bool) -> None:
        known = self.current
        self._lines = lines
        self._pairs = pairs
        if known is not None:
            places = [i for i, line in enumerate(lines) if line.row.id == known.row.id]
            self._cursor = places[0] if places else self._cursor
        self._cursor = max(min(self._cursor, len(lines) - 1), 0)
        self.virtual_size = Size(self.size.width, len(lines))
        self.refresh()

    def render_line(self, y: int) -> Strip:
        index = y + self.scroll_offset.y
        width = self.size.width
        if index >= len(self._lines):
            return Strip.blank(width, Style())  # a filter wants a style, even of nothing
        line = self._lines[index]
        style = _STYLES[line.row.state]
        if index == self._cursor:
            style += Style(reverse=True)
        text = line_text(line, max(width, WIDTH), pairs=self._pairs)
        return Strip([Segment(text.ljust(width), style)]).crop(0, width)

    def action_move(self, by: int) -> None:
        if not self._lines:
            return
        self._cursor = max(0, min(self._cursor + by, len(self._lines) - 1))
        top, height = self.scroll_offset.y, max(self.size.height, 1)
        if self._cursor < top:
            self.scroll_to(y=self._cursor, animate=False)
        elif self._cursor >= top + height:
            self.scroll_to(y=self._cursor - height + 1, animate=False)
        self.refresh()

    def action_page(self, direction: int) -> None:
        self.action_move(direction * max(self.size.height - 1, 1))

    def action_open(self) -> None:
        if self.current is not None:
            self.post_message(self.Opened(self.current))


class _Colourless(LineFilter):
    """Bold, dim and reverse stay."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            Segment(text, style.without_color if style else style, control)
            for text, style, control in segments
        ]


class Question(ModalScreen[bool]):
    """Yes or no."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False),
        Binding("n,escape,q", "answer(False)", show=False),
    ]
    DEFAULT_CSS = """
    Question { align: center middle; }
    Question > Static { width: 64; height: auto; border: round $warning; padding: 1 2; }
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(self._text, markup=False)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class Detail(Screen[None]):
    """All of one connection, live."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,left,backspace", "close", show=False),
        Binding("d", "defuse", show=False),
    ]
    DEFAULT_CSS = """
    Detail > .keys { dock: bottom; height: 1; width: 100%; text-style: reverse; }
    """

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        # Kept, for a look may come before it has its place on the screen.
        self._text = Static(markup=False)

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self._text
        yield Static("esc back  d defuse", classes="keys", markup=False)

    def on_mount(self) -> None:
        self._draw("")

    def _draw(self, note: str) -> None:
        lines = ([note, ""] if note else []) + detail(self._line)
        self._text.update("\n".join(lines))

    def follow(self, view: View) -> None:
        """Shows what a new look has brought."""
        row = self._line.row
        for line in view.lines:
            if line.row.id == row.id and line.row.client.port == row.client.port:
                self._line = line
                self._draw(view.problem or "")
                return
        self._draw(view.problem or "It is over.")

    def action_close(self) -> None:
        self.dismiss(None)

    def action_defuse(self) -> None:
        app = self.app
        assert isinstance(app, Top)
        app.ask_to_defuse(self._line)


class Top(App[None]):
    """The whole."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #summary { height: 2; }
    #heading { height: 1; text-style: bold; }
    #filter { height: 1; border: none; padding: 0; display: none; }
    #filter.open { display: block; }
    #note { height: auto; color: $warning; }
    #keys { dock: bottom; height: 1; text-style: reverse; }
    Connections { height: 1fr; scrollbar-size-vertical: 0; scrollbar-size-horizontal: 0; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(sort.key, f"sort('{sort.name}')", show=False) for sort in SORTS),
        Binding("s", "next_sort", show=False),
        Binding("p", "pairs", show=False),
        Binding("slash", "filter", show=False),
        Binding("escape", "show_all", show=False),
        Binding("d", "defuse", show=False),
        Binding("space", "pause", show=False),
        Binding("q,ctrl+c", "quit", show=False),
    ]

    def __init__(
        self,
        source: Source,
        sort: Sort,
        text: str,
        *,
        pairs: bool,
        delay: float,
        count: int | None = None,
        order: Order | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._sort = sort
        self._text = text
        self._pairs = pairs
        self._delay = delay
        self._count = count
        self._order = order or (lambda number: _order(source, number))
        self._view: View | None = None
        self._paused = False

    def get_line_filters(self) -> Sequence[LineFilter]:
        """With NO_COLOR, textual's own would write greys."""
        return [_Colourless()] if os.environ.get("NO_COLOR") else super().get_line_filters()

    def compose(self) -> ComposeResult:
        yield Static(id="summary", markup=False)
        yield Static(id="heading", markup=False)
        yield Connections()
        yield Static(id="note", markup=False)
        yield Input(self._text, id="filter", placeholder="text to look for", compact=True)
        yield Static(_KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        self.query_one(Connections).focus()
        self._look()

    def on_resize(self, _event: Resize) -> None:
        self._draw()

    # -- looking --------------------------------------------------------------------

    @work(thread=True, exclusive=True)
    def _look(self) -> None:
        view = self._source.look()
        self.call_from_thread(self._take, view)

    def _take(self, view: View) -> None:
        if not self._paused:
            self._view = view
            self._draw()
            if isinstance(self.screen, Detail):
                self.screen.follow(view)
        if self._count is not None and not view.fresh:
            self._count -= 1
            if self._count <= 0:
                self.exit()
                return
        # The first rates come soon.
        delay = min(self._delay, 0.5) if view.fresh else self._delay
        self.set_timer(self._source.pause(delay), self._look)

    def _draw(self) -> None:
        view = self._view
        # Over another screen, the list below is drawn all the same: it is there on return.
        base = self.screen_stack[0] if self.screen_stack else None
        if view is None or base is None or len(base.query(_DRAWN)) < 3:
            return  # not there yet, or already going
        first, second = summary(view)
        marks = f"   by {self._sort.name}" + (f", with {self._text!r}" if self._text else "")
        marks += "   paused" if self._paused else ""
        base.query_one("#summary", Static).update(f"{first}{marks}\n{second}")
        table = base.query_one(Connections)
        width = max(self.size.width, WIDTH)
        base.query_one("#heading", Static).update(heading(width, pairs=self._pairs))
        lines = arrange(view.lines, self._sort, self._text, pairs=self._pairs)
        table.show(lines, pairs=self._pairs)

    def _note(self, text: str) -> None:
        self.screen_stack[0].query_one("#note", Static).update(text)

    # -- keys -----------------------------------------------------------------------

    def action_sort(self, name: str) -> None:
        self._sort = sort_named(name)
        self._draw()

    def action_next_sort(self) -> None:
        self._sort = SORTS[(SORTS.index(self._sort) + 1) % len(SORTS)]
        self._draw()

    def action_pairs(self) -> None:
        self._pairs = not self._pairs
        self._draw()

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._draw()

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.focus()
        self.query_one("#keys", Static).update(_FILTER_KEYS)

    def action_show_all(self) -> None:
        self.query_one("#filter", Input).value = ""
        self._leave_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._text = event.value
        self._draw()

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        self._leave_filter()

    def _leave_filter(self) -> None:
        self.query_one("#filter", Input).remove_class("open")
        self.query_one("#keys", Static).update(_KEYS)
        self.query_one(Connections).focus()

    def on_connections_opened(self, event: Connections.Opened) -> None:
        if event.line.connections > 1:
            self._text = program(event.line.row.client)
            self.query_one("#filter", Input).value = self._text
            self._pairs = False
            self._draw()
            return
        self.push_screen(Detail(event.line))

    def action_defuse(self) -> None:
        line = self.query_one(Connections).current
        if line is not None and line.connections > 1:
            self._note("One connection at a time is defused: enter shows those of this pair.")
        elif line is not None:
            self.ask_to_defuse(line)

    def ask_to_defuse(self, line: Line) -> None:
        row = line.row
        names = f"{program(row.client)} > {program(row.server)}"
        question = (
            f"Send connection {row.id} ({names}) back to plain TCP?\n\n"
            "Nothing is lost, but it is not fused again as long as it lives.\n\n"
            "y: yes   n: no"
        )

        def answered(yes: bool | None) -> None:
            if yes:
                self._defuse(row.id)

        self.push_screen(Question(question), answered)

    @work(thread=True)
    def _defuse(self, number: int) -> None:
        self.call_from_thread(self._note, self._order(number))


def _order(source: Source, number: int) -> str:
    try:
        (answer,) = order_defuse(source.path, [number])
    except LoopfuseError as error:
        return str(error)
    return f"Connection {number} {_RESULTS[answer.result]}."
