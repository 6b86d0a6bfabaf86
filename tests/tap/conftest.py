"""What the tests of taps share."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_fixtures import BrokerProcess


@pytest.fixture
def broker_path(session_broker: BrokerProcess) -> Path:
    return session_broker.path
