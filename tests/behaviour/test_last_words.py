"""A socket that moves after its peer has shut down, closed or exited loses no byte either."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_descriptors import MOVERS, compare, is_last_words
from test_transcripts import scenarios

from sessions import Session


@pytest.mark.parametrize("name", [name for name in scenarios(MOVERS) if is_last_words(name)])
def test_the_transcript_is_the_same(
    name: str, plain: Session, fused: Session, programs: Path
) -> None:
    compare(name, plain, fused, programs)
