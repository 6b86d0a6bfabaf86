"""What a soak has come to: printed, and kept in build/."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.troubles import Brokers
from soak.work import Tally

BUILD = Path(__file__).parents[2] / "build"


class Report:
    """Lines for people, beside what the library was."""

    def __init__(self, library: Path, what: str) -> None:
        self._file = BUILD / f"soak-{library.parent.name}.log"
        self._lines = [f"soak: {what}, library {library.parent.name}"]

    def add(self, what: str, number: object) -> None:
        self._lines.append(f"  {what}: {number}")

    def counts(self, tally: Tally, brokers: Brokers) -> None:
        for what, number in sorted(tally.counts.items()):
            self.add(what, f"{number:,}")
        for (name, labels), count in sorted(brokers.counted.items()):
            if count and name.removeprefix("loopfuse_") in BROKERS:
                self.add(" ".join([name, *labels]), f"{count:,}")
        self.add("unexplained", len(tally.unexplained))
        self._lines += tally.unexplained

    def keep(self, request: pytest.FixtureRequest) -> None:
        """Behind those of earlier runs."""
        text = "\n".join(self._lines) + "\n"
        BUILD.mkdir(exist_ok=True)
        with self._file.open("a") as log:
            log.write(text)
        with request.getfixturevalue("capsys").disabled():
            print(f"\n{text}", end="")


BROKERS = ("fused_total", "declined_total", "defused_total", "ring_bytes_total", "errors_total")
