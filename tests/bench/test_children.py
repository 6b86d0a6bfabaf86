"""How a measured program that fails is quoted."""

from __future__ import annotations

import os

import pytest

from loopfuse._bench.children import running
from loopfuse._errors import BenchError


@pytest.mark.parametrize(
    ("script", "quoted"),
    [
        ("echo first; echo why >&2; echo later; exit 6", "it said: why"),
        ("echo first; echo why; exit 6", "it said: why"),  # sockperf's way
    ],
)
def test_its_last_words_are_quoted(script: str, quoted: str) -> None:
    with (
        running(["sh", "-c", script], os.environ) as child,
        pytest.raises(BenchError, match=f"exit status 6.*{quoted}$"),
    ):
        child.finish(10)


def test_one_that_says_nothing_is_not_quoted() -> None:
    with (
        running(["sh", "-c", "exit 6"], os.environ) as child,
        pytest.raises(BenchError, match=r"exit status 6\)$"),
    ):
        child.finish(10)
