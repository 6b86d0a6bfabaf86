"""The fuzzers' kept inputs once more, and some new ones (scripts/fuzz looks for more)."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TREE = HERE.parent.parent
SECONDS = 1
PYTHON = ["messages", "segment", "capture"]


def environment() -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{TREE / 'src'}{':' + path if path else ''}"}


def fuzz(command: list[str], target: str, tmp_path: Path) -> None:
    """Runs what is kept, then looks for more for a while."""
    new = tmp_path / "corpus"
    new.mkdir()
    options = [f"-max_total_time={SECONDS}", "-timeout=10", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [*command, *options, str(new), str(HERE / "corpus" / target)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]


@pytest.mark.parametrize("target", ["ring", "broker"])
def test_the_library_withstands_what_others_write(target: str, tmp_path: Path) -> None:
    built = subprocess.run(
        [TREE / "scripts" / "fuzz", "build", target], stdout=subprocess.PIPE, text=True, check=True
    )
    fuzz([built.stdout.strip()], target, tmp_path)


@pytest.mark.parametrize("target", PYTHON)
def test_kept_inputs_raise_nothing(target: str) -> None:
    folder = HERE / "corpus" / target
    done = subprocess.run(
        [sys.executable, HERE / "fuzz_python.py", "replay", target, folder],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list(folder.iterdir())) > 0


@pytest.mark.parametrize("target", PYTHON)
def test_python_withstands_what_others_write(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        there_is_one = sys.version_info >= (3, 11) and platform.machine() == "x86_64"
        if os.environ.get("CI") and there_is_one:
            pytest.fail("atheris is missing: scripts/venv test")
        pytest.skip("no atheris for this Python (pip install 'loopfuse[test]')")
    fuzz([sys.executable, str(HERE / "fuzz_python.py"), target], target, tmp_path)
