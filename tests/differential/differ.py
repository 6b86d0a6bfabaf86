"""Runs a program plain and fused, and says what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from differential.director import Director
from differential.pair import Pair
from differential.strategies import Program
from differential.transcript import Transcript, differs_at, side_by_side

_PATIENCE = (0.4, 1.0, 4.0)
"""Seconds for a step that returned on plain TCP; try by try, so that what differs is found
soon and what is merely late is not taken for different."""


class Differ:
    """Pairs of parties for every mode, and counts of what was run."""

    def __init__(self, plain: Pair, fused: dict[str, Pair]) -> None:
        self._plain = plain
        self._fused = fused
        self.counts: Counter[str] = Counter()

    def difference(self, program: Program) -> str | None:
        """The shortest part of the program that makes a difference, with the two transcripts
        side by side. None: they agree, or plain TCP is of two minds."""
        self.counts["programs"] += 1
        difference = self._compare(program, self.counts)
        if difference is None:
            return None
        shorter = self._reduced(program)
        again = self._compare(shorter, Counter())
        return f"{shorter}\n{again}" if again else f"{program}\n{difference}"

    def _compare(self, program: Program, counts: Counter[str]) -> str | None:
        seen: list[Transcript] = []
        for late in _PATIENCE:
            plain = Director(self._plain, program).run()
            # A window of a few bytes takes plain TCP longer than the director waits.
            hung = any(line.said == "hung" for line in plain.lines)
            if hung or any(differs_at(before, plain) is not None for before in seen):
                counts["unstable"] += 1
                return None
            seen.append(plain)
            fused = Director(self._fused[program.mode], program, plain, late).run()
            if differs_at(plain, fused) is None:
                counts["fused"] += fused.fused
                counts["steps"] += len(plain.lines)
                counts["agreed at a later try"] += len(seen) > 1
                return None
        return f"fused: {fused.fused}\n{side_by_side(plain, fused)}"

    def _reduced(self, program: Program) -> Program:
        """Leaves out whatever is not needed for a difference, the last steps first."""
        simpler = [
            {"early": 0},
            {"before": []},
            {"defuse_at": None},
            {"pair_at": 0},
            {"pairing": "ping"},
            {"family": "ipv4"},
            {"blocking_connect": True},
            {"mode": "lazy"},
        ]
        for change in simpler:
            candidate = replace(program, **change)
            if candidate != program and self._compare(candidate, Counter()):
                program = candidate
        count = len(program.steps)
        while count:
            count //= 2
            size = max(1, count)
            at = len(program.steps) - size
            while at >= 0:
                steps = program.steps[:at] + program.steps[at + size :]
                candidate = replace(program, steps=steps)
                if self._compare(candidate, Counter()):
                    program = candidate
                at -= size
        return program
