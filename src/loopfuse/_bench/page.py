"""The report as one page of HTML that needs nothing else: plots are SVG in it."""

from __future__ import annotations

from html import escape

from loopfuse._bench import judging, plots
from loopfuse._bench.results import Fact, Report, Row, TargetResult
from loopfuse._bench.statistics import cpu_of, instructions_of, latency_of, median_of
from loopfuse._bench.table import figure, gain_in_words, kinds_of, value_in_words

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e4e7eb; text-align: right; }
th { background: #f5f7fa; } th:first-child, td:first-child, .words td { text-align: left; }
td.ours { background: #fff4ec; font-weight: 600; } .unit, .spread { color: #7b8794; }
.scroll { overflow-x: auto; } svg { max-width: 100%; height: auto; }
.bad { color: #ab091e; font-weight: 600; } summary { cursor: pointer; }
"""


_CPU_OF = ("client_cpu", "server_cpu", "broker_cpu")


def page(report: Report) -> str:
    """The whole page."""
    drawn = plots.draw(report) if plots.available() else {}
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>loopfuse bench, {escape(report.started)}</title>",
        f"<style>{_STYLE}</style></head><body>",
        "<h1>loopfuse bench</h1>",
        f"<p>loopfuse {escape(report.version)}, {escape(report.started)}, "
        f"{report.seconds:.0f} s in all. {escape(report.proof())}.</p>",
    ]
    failed = report.incomplete()
    if failed:
        parts.append(f'<p class="bad">{len(failed)} cells are not complete; see the end.</p>')
    if not drawn:
        parts.append(f"<p>{escape(plots.WITHOUT)}.</p>" if not plots.available() else "")
    titles = {side.key: side.title for side in report.sides}
    if report.explanation is not None:
        parts.append("<h2>What a round trip is made of</h2>")
        if plots.available():
            parts.append(plots.draw_parts(report.explanation))
        parts.append(f"<p>{escape(report.explanation.words)}</p>")
    for kind, title, rows in kinds_of(report):
        parts.append(f"<h2>{escape(title)}</h2>")
        parts.extend(drawn.get(kind, ()))
        parts.append(_values(rows, titles))
        parts.append(_details(rows, titles))
    parts.append("<h2>The sides</h2>")
    parts.append(_facts([Fact(side.title, side.words) for side in report.sides]))
    for title, facts in (
        ("Machine", report.machine),
        ("Method", report.method),
        ("Left out", report.left_out),
        (
            "Without a figure, or not from all rounds",
            [Fact(name, why) for name, why in failed.items()],
        ),
    ):
        if facts:
            parts.append(f"<h2>{title}</h2>{_facts(facts)}")
    if report.targets:
        parts.append(f"<h2>Targets</h2><p>{escape(judging.summary(report.targets))}.</p>")
        parts.append(_targets(judging.measured(report.targets)))
    parts.append("</body></html>")
    return "\n".join(part for part in parts if part) + "\n"


def _table(head: list[str], body: list[list[str]], style: str = "") -> str:
    """The cells are HTML already."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(cells) + "</tr>\n" for cells in body)
    header = f"<thead><tr>{top}</tr></thead>" if head else ""
    return (
        f'<div class="scroll"><table class="{style}">{header}<tbody>{lines}</tbody></table></div>'
    )


def _values(rows: list[Row], titles: dict[str, str]) -> str:
    keys = [key for key in titles if any(row.cell(key) for row in rows)]
    head = ["", *(escape(titles[key]) for key in keys), "loopfuse to TCP"]
    body = []
    for row in rows:
        line = [f'<td>{escape(row.title)} <span class="unit">({escape(row.unit)})</span></td>']
        for key in keys:
            median, _, rest = value_in_words(row.cell(key)).partition(" ")
            mark = ' class="ours"' if key == "loopfuse" else ""
            line.append(f'<td{mark}>{median}<br><span class="spread">{escape(rest)}</span></td>')
        body.append([*line, f"<td><b>{gain_in_words(row)}</b></td>"])
    return _table(head, body)


def _details(rows: list[Row], titles: dict[str, str]) -> str:
    head = ["", "side", "p50 us", "p90 us", "p99 us", "p99.9 us", "max us"]
    head += ["client CPU us", "server CPU us", "broker CPU us", "all", "sleeps"]
    head += ["instructions", "memory kB"]
    body = []
    for row in rows:
        for cell in row.cells:
            if cell.value is None:
                continue
            latency = latency_of(cell)
            numbers = [
                getattr(latency, name) if latency else None
                for name in ("p50", "p90", "p99", "p999", "max")
            ]
            numbers += [median_of(cell, name) for name in _CPU_OF]
            numbers += [cpu_of(cell), median_of(cell, "sleeps"), instructions_of(cell)]
            numbers.append(median_of(cell, "memory_kb"))
            what = f'{escape(row.title)} <span class="unit">(a {escape(row.work)})</span>'
            line = [f"<td>{what}</td>", f"<td>{escape(titles[cell.side])}</td>"]
            body.append([*line, *(f"<td>{figure(number)}</td>" for number in numbers)])
    return f"<details><summary>Latency, CPU, memory</summary>{_table(head, body)}</details>"


def _targets(results: list[TargetResult]) -> str:
    body = []
    for result in results:
        mark = ' class="bad"' if result.reached is False else ""
        *words, verdict = (escape(word) for word in result.in_words())
        body.append([*(f"<td>{word}</td>" for word in words), f"<td{mark}>{verdict}</td>"])
    return _table(list(judging.COLUMNS), body, "words")


def _facts(facts: list[Fact]) -> str:
    body = [[f"<td>{escape(f.name)}</td>", f"<td>{escape(f.value)}</td>"] for f in facts]
    return _table([], body, "words")
