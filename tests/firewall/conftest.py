"""Fixtures of the firewall's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from firewall.namespace import Namespace, namespace


@pytest.fixture(scope="module")
def place() -> Iterator[Namespace]:
    with namespace() as one:
        yield one
