"""Plots as SVG text. matplotlib is imported only here, and may be missing (extra `bench`)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loopfuse._bench.explanation import PARTS
from loopfuse._bench.results import Explanation, Report, Row
from loopfuse._bench.statistics import gain, latency_of
from loopfuse._bench.workloads import bytes_in_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "tcp": "#9aa5b1",
    "tcp-poll": "#52606d",
    "unix": "#8bb8e8",
    "unix-poll": "#2f6db3",
    "loopfuse": "#d9480f",
    "sockmap": "#7e57c2",
    "loopfuse-sleep": "#f4a261",
    "floor": "#2b8a3e",
}
_PART_COLOURS = ("#d9480f", "#52606d", "#9aa5b1", "#8bb8e8", "#f2c14e")
_STYLES = {"tcp-poll": "--", "unix-poll": "--", "floor": ":"}
WITHOUT = "matplotlib is not installed, so there are no plots: pip install 'loopfuse[bench]'"


def available() -> bool:
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def draw(report: Report) -> dict[str, list[str]]:
    """The plots of each kind of work, as SVG elements to be put into a page."""
    titles = {side.key: side.title for side in report.sides}
    plots: dict[str, list[str]] = {}
    for kind, label, title in (
        ("roundtrip", "us a round trip", "Round trips: less is better"),
        ("stream", "GB/s", "Streams: more is better"),
    ):
        rows = [row for row in report.rows if row.kind == kind and not row.pinned]
        if len(rows) > 1:
            plots.setdefault(kind, []).append(_over_sizes(rows, titles, label, title))
    trips = [row for row in report.rows if row.kind == "roundtrip"]
    if trips:
        plots.setdefault("roundtrip", []).append(_percentiles(trips[0], titles))
    pinned = [row for row in trips if row.pinned]
    if pinned:
        title = "1 B round trips by placement: less is better"
        plots["roundtrip"].append(_bars(pinned, titles, "us a round trip", title))
    crowds = [row for row in report.rows if row.kind == "many"]
    if crowds:
        title = "Many connections: more is better"
        plots["many"] = [_bars(crowds, titles, "messages/s", title)]
    programs = [row for row in report.rows if row.kind == "programs"]
    if programs:
        plots["programs"] = [_gains(programs, titles)]
    return plots


def draw_parts(explanation: Explanation) -> str:
    """Stacked bars of what round trips are made of."""
    bars = explanation.bars[::-1]
    made, axes = figure(9.0, 0.5 * len(bars) + 1.4)
    left = [0.0] * len(bars)
    for part, colour in zip(PARTS, _PART_COLOURS, strict=True):
        widths = [bar.parts.get(part, 0.0) for bar in bars]
        if any(widths):
            axes.barh(range(len(bars)), widths, 0.65, left=left, label=part, color=colour)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, total in enumerate(left):
        axes.text(total, place, f" {total:.3g} us", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [bar.title for bar in bars], fontsize=9)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("us a round trip of one byte")
    axes.legend(frameon=False, fontsize=8)
    return svg(made)


def figure(width: float = 8.0, height: float = 4.0) -> tuple[Figure, Any]:
    """An empty plot in the style of all of them, and its axes."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    made = Figure(figsize=(width, height))
    axes = made.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb")
    axes.set_axisbelow(True)
    return made, axes


def svg(made: Figure) -> str:
    """Without the XML prologue, for a page of HTML."""
    out = io.StringIO()
    made.tight_layout()
    made.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _log_scale(axes: Any) -> None:
    """Numbers as people write them, and a whole power of ten at either end."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    axes.yaxis.set_major_formatter("{x:,g}")


def _keys(rows: Sequence[Row], titles: dict[str, str]) -> list[str]:
    return [key for key in titles if any((c := r.cell(key)) and c.value for r in rows)]


def _over_sizes(rows: Sequence[Row], titles: dict[str, str], label: str, title: str) -> str:
    made, axes = figure()
    for key in _keys(rows, titles):
        points = [(r.size, c.value) for r in rows if (c := r.cell(key)) and c.value]
        middle = [value.median for _, value in points]
        low = [value.median - value.low for _, value in points]
        high = [value.high - value.median for _, value in points]
        axes.errorbar(
            [size for size, _ in points],
            middle,
            yerr=[low, high],
            label=titles[key],
            color=COLOURS[key],
            linestyle=_STYLES.get(key, "-"),
            marker="o",
            markersize=4,
            linewidth=2 if key == "loopfuse" else 1.3,
            capsize=2,
        )
    axes.set_xscale("log", base=2)
    sizes = [row.size or 1 for row in rows]
    axes.set_xticks(sizes, [bytes_in_words(size) for size in sizes], fontsize=9)
    axes.minorticks_off()
    _log_scale(axes)
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    return svg(made)


def _bars(rows: Sequence[Row], titles: dict[str, str], label: str, title: str) -> str:
    keys = _keys(rows, titles)
    made, axes = figure(max(8.0, 0.9 * len(rows)), 4.4)
    width = 0.8 / max(1, len(keys))
    for number, key in enumerate(keys):
        found = [(i, c.value) for i, r in enumerate(rows) if (c := r.cell(key)) and c.value]
        axes.bar(
            [i + (number - (len(keys) - 1) / 2) * width for i, _ in found],
            [value.median for _, value in found],
            width,
            label=titles[key],
            color=COLOURS[key],
        )
    _log_scale(axes)
    names = [row.title.removeprefix("round trip, ").replace(", ", "\n") for row in rows]
    axes.set_xticks(range(len(rows)), names, fontsize=7 if len(rows) > 4 else 9)
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=11)
    axes.legend(frameon=False, fontsize=8, ncols=3)
    return svg(made)


def _percentiles(row: Row, titles: dict[str, str]) -> str:
    made, axes = figure()
    names = ("p50", "p90", "p99", "p999")
    for key in _keys([row], titles):
        cell = row.cell(key)
        latency = latency_of(cell) if cell else None
        if latency is None:
            continue
        values = [getattr(latency, name) for name in names]
        style = {"color": COLOURS[key], "linestyle": _STYLES.get(key, "-")}
        axes.plot(range(len(names)), values, marker="o", label=titles[key], **style)
    _log_scale(axes)
    axes.set_xticks(range(len(names)), ["50 %", "90 %", "99 %", "99.9 %"])
    axes.set_xlabel("of the round trips take at most")
    axes.set_ylabel("us")
    axes.set_title(f"Latency of the {row.title}: less is better", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    return svg(made)


def _gains(rows: Sequence[Row], titles: dict[str, str]) -> str:
    made, axes = figure(8.0, 0.45 * len(rows) + 1.6)
    rows = rows[::-1]
    for offset, key in ((0.2, "unix"), (-0.2, "loopfuse")):
        found = [(i, g) for i, row in enumerate(rows) if (g := _gain(row, key)) is not None]
        bars = axes.barh(
            [i + offset for i, _ in found],
            [g for _, g in found],
            0.38,
            label=titles[key],
            color=COLOURS[key],
        )
        axes.bar_label(bars, fmt="%.2g x", fontsize=8, padding=3)
    axes.axvline(1, color=COLOURS["tcp"], linewidth=1)
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=9)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("times plain TCP")
    axes.set_title("Real programs: more is better", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return svg(made)


def _gain(row: Row, key: str) -> float | None:
    plain, other = row.cell("tcp"), row.cell(key)
    return gain(plain.value, other.value, row.better) if plain and other else None
