"""The tables of docs/performance.md, out of what a run measured:

loopfuse bench --json run.json && python bench/markdown.py run.json
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from loopfuse._bench import judging
from loopfuse._bench.results import Report, Row
from loopfuse._bench.table import figure, gain_in_words, kinds_of, value_in_words


def values(title: str, rows: list[Row], titles: dict[str, str]) -> list[str]:
    """Medians of each side; fused, with the lowest and highest, and the ratio to TCP."""
    keys = [key for key in titles if any(row.cell(key) for row in rows)]
    lines = [f"### {title}", ""]
    head = [*(titles[key] for key in keys), "loopfuse to TCP"]
    lines += [f"| | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for row in rows:
        words = []
        for key in keys:
            cell = row.cell(key)
            if key == "loopfuse":
                words.append(value_in_words(cell))
            else:
                words.append(figure(cell.value.median if cell and cell.value else None))
        lines.append(f"| {row.title} ({row.unit}) | {' | '.join([*words, gain_in_words(row)])} |")
    return [*lines, ""]


def main() -> None:
    report = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Report)
    titles = {side.key: side.title for side in report.sides}
    lines = [f"{fact.name}: {fact.value}  " for fact in (*report.machine, *report.method)]
    lines.append(f"started {report.started}, {report.seconds:.0f} s, {report.rounds} rounds")
    lines += ["", f"{report.proof()}.", ""]
    for _, title, rows in kinds_of(report):
        lines += values(title, rows, titles)
    lines += [f"### Targets: {judging.summary(report.targets)}", ""]
    lines += [f"| {' | '.join(judging.COLUMNS)} |", f"|{'---|' * len(judging.COLUMNS)}"]
    lines += [f"| {' | '.join(result.in_words())} |" for result in judging.measured(report.targets)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
