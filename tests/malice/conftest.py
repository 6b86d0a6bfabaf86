"""The programs that do harm, and those to whom it is done."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """victim, and flip.so."""
    out = tmp_path_factory.mktemp("malice")
    common = ["gcc", "-O1", "-g", "-pthread"]
    subprocess.run([*common, "-o", out / "victim", HERE / "victim.c"], check=True)
    shared = [*common, "-shared", "-fPIC"]
    subprocess.run([*shared, "-o", out / "flip.so", HERE / "flip.c"], check=True)
    return out
