"""python -m teardown.table [RUNS]: measures the teardown table and writes it to the docs.

    PYTHONPATH=tests LOOPFUSE_LIBRARY=$(scripts/build-variant dev) python -m teardown.table 5

What varies on plain TCP from run to run is listed with "or". Run it again after changes: what
is listed stays, so that rare outcomes are not forgotten.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from loopfuse._preload import library_path
from teardown.cells import CELLS, DOINGS, WAYS, Cell
from teardown.measure import Measurement, Outcome

PAGE = Path(__file__).parent.parent.parent / "docs" / "semantics" / "teardown.md"
SAME = "the same"

_WINDOW = (
    "the bytes that waited for TCP's window draw the reset before the writer goes on; those in "
    "a full ring had arrived, so it gets one more send out"
)
_NO_UPDATE = (
    "TCP sends no window update from a socket that is shut for reading, so its writer waits "
    "for a probe; a ring has room at once"
)
_NO_INTERFACE = "payload crosses no interface, so it does not wait for one"

REASONS = {
    Cell("shut-rd", "send"): _NO_UPDATE,
    Cell("shut-rd", "write"): _NO_UPDATE,
    Cell("shut-rdwr", "send"): _WINDOW,
    Cell("shut-rdwr", "write"): _WINDOW,
    Cell("shut-rdwr-both", "send"): _WINDOW,
    Cell("shut-rdwr-both", "write"): _WINDOW,
} | {Cell("interface-down", doing): _NO_INTERFACE for doing in DOINGS}
"""The cells that may differ, and why."""

_HEAD = """\
# Teardown: every way an end can go

`tests/behaviour/test_teardown.py` acts out each row, on plain TCP, fused lazily and fused
eagerly, and compares with this page. The test column names the last part of three tests:
`[{cell}]` is `test_plain_tcp_does_what_the_table_says[{cell}]` and
`test_the_other_end_sees_the_same[lazy-{cell}]` and `[eager-{cell}]`. The page is written by
`python -m teardown.table`; only its third column may say anything but "the same", and then says
why.

A row tells, of the end that stays: what the call under way comes to ("waits": nothing in
0.3 s; then the other end reads what there is and sends five bytes); then `poll` with all bits,
two receives and two sends that do not wait (bytes, "many" for more than {small}, EOF or errno,
and SIGPIPE), `SO_ERROR`, `poll` again. "There" is the same of the end that went, where it
lives on. Outcomes that vary on plain TCP are all listed, with "or".
"""


@dataclass
class Row:
    plain: list[str] = field(default_factory=list)
    fused: list[str] = field(default_factory=list)
    """Empty: as on plain TCP."""

    def allows_plain(self, outcome: str) -> bool:
        return outcome in self.plain

    def allows_fused(self, outcome: str) -> bool:
        return outcome in self.plain or outcome in self.fused


_CODE = re.compile(r"`([^`]*)`")


def _escape(said: str) -> str:
    return f"`{said}`".replace("|", r"\|")


def read() -> dict[Cell, Row]:
    """What the page says."""
    rows: dict[Cell, Row] = {}
    ways = {words: way for way, words in WAYS.items()}
    doings = {words: doing for doing, words in DOINGS.items()}
    way = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            way = ways[line[3:]]
        columns = [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]
        if way and len(columns) == 4 and columns[0] in doings:
            said = [[x.replace(r"\|", "|") for x in _CODE.findall(c)] for c in columns[1:3]]
            rows[Cell(way, doings[columns[0]])] = Row(*said)
    return rows


def write(rows: dict[Cell, Row]) -> None:
    from teardown.calls import SMALL

    first = CELLS[0]
    words = {"doing": DOINGS[first.doing], "way": WAYS[first.way], "cell": first, "small": SMALL}
    text = [_HEAD.format(**words)]
    for way, title in WAYS.items():
        text += [f"## {title}\n", "| the other end is | plain TCP | fused | test |"]
        text += ["|---|---|---|---|"]
        for doing, what in DOINGS.items():
            row = rows[Cell(way, doing)]
            fused = SAME
            if row.fused:
                fused = f"{' or '.join(map(_escape, row.fused))}: {REASONS[Cell(way, doing)]}"
            plain = " or ".join(map(_escape, row.plain))
            text.append(f"| {what} | {plain} | {fused} | [{Cell(way, doing)}] |")
        text.append("")
    PAGE.write_text("\n".join(text))


def _learn(rows: dict[Cell, Row], cell: Cell, pairing: str, outcome: Outcome) -> str | None:
    """Adds one outcome; says what speaks against it."""
    row = rows.setdefault(cell, Row())
    if outcome.failed:
        return outcome.failed
    if pairing == "plain":
        if not row.allows_plain(outcome.said):
            row.plain.append(outcome.said)
    elif not outcome.fused:
        return "it was never fused"
    elif not row.allows_fused(outcome.said):
        if cell not in REASONS:
            return f"differs without a reason\n  plain {row.plain}\n  fused {outcome.said}"
        row.fused.append(outcome.said)
    return None


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    rows = read() if PAGE.exists() else {}
    library = library_path()
    complaints = 0
    for pairing in ("plain", "lazy", "eager"):
        measurement = Measurement(library if pairing != "plain" else None, eager=pairing == "eager")
        for _ in range(runs):
            for cell, outcome in measurement.outcomes(CELLS).items():
                if complaint := _learn(rows, cell, pairing, outcome):
                    complaints += 1
                    print(f"{cell} {pairing}: {complaint}")
    write(rows)
    sys.exit(complaints != 0)


if __name__ == "__main__":
    main()
