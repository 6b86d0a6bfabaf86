"""What a broker's metrics say."""

from __future__ import annotations

import urllib.request

Samples = dict[tuple[str, tuple[str, ...]], float]
"""By name and by the values of the labels, in the order of their names."""


def samples_of(text: str) -> Samples:
    from prometheus_client.parser import text_string_to_metric_families  # not installed everywhere

    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(port: int) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return samples_of(answer.read().decode())
