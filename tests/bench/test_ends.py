"""What the measuring client prints, as figures of a row."""

from __future__ import annotations

import pytest

from bench.made_up import PLAIN
from loopfuse._bench.ends import Latencies, Measured

MEASURED = Measured(
    units=2000,
    bytes=4_000_000,
    start=5.0,
    seconds=0.5,
    client_cpu=0.2,
    server_cpu=0.1,
    sleeps=1000,
    memory_kb=100,
    latency_ns=Latencies(p50=250e3, p90=300e3, p99=400e3, p999=500e3, max=600e3),
)


@pytest.mark.parametrize(
    ("kind", "value", "client_cpu", "sleeps"),
    [
        ("roundtrip", 250.0, 100.0, 0.5),
        ("explain", 250.0, 100.0, 0.5),
        ("self", 250.0, 100.0, 0.5),
        ("stream", 0.008, 50e3, 250.0),
        ("rate", 4000.0, 100.0, 0.5),
    ],
)
def test_each_kind_of_work_has_its_figures(
    kind: str, value: float, client_cpu: float, sleeps: float
) -> None:
    sample = MEASURED.sample(kind, PLAIN)
    assert sample.value == pytest.approx(value)
    assert sample.client_cpu == pytest.approx(client_cpu)
    assert sample.server_cpu == pytest.approx(client_cpu / 2)
    assert sample.sleeps == pytest.approx(sleeps)
    assert sample.proof == PLAIN
    assert sample.latency is not None and sample.latency.p50 == pytest.approx(250.0)
