"""Programs that act as both ends (tests/programs/two_ends.h): the same words, plain and fused."""

from __future__ import annotations

from pathlib import Path

from sessions import Session

_PATIENCE = 60.0


def same(
    plain: Session, fused: Session, program: Path, scenario: str, timeout: float = _PATIENCE
) -> str:
    """What the scenario says; fails if that differs, or if it was never fused."""
    said = plain.run([str(program), scenario], timeout=timeout).stdout
    done = fused.run([*fused.prefix, str(program), scenario], timeout=timeout)
    assert done.stdout == said, f"plain:\n{said}\nfused:\n{done.stdout}"
    assert "fused" in done.stderr, "it was never fused"
    return said
