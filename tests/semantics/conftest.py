"""What these tests share: parties that live on from test to test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess
from semantics.two_ends import TwoEnds
from sessions import Session


@pytest.fixture(scope="session")
def ends(library: Path, session_broker: BrokerProcess) -> Iterator[tuple[TwoEnds, TwoEnds]]:
    """Client and server plain, and client and server fused."""
    fused = Session.under(library, session_broker, eager=False)
    pairs = TwoEnds(Session({}, None)), TwoEnds(fused)
    yield pairs
    for pair in pairs:
        pair.stop()
