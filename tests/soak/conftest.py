"""A broker that counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from soak.troubles import Brokers
from soak.work import Tally


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    pytest.importorskip("prometheus_client")
    brokers = Brokers(tmp_path / "broker.sock", Tally())
    yield brokers
    code, said = brokers.present.stop()
    assert code == 0 and "Traceback" not in said, said
