"""What the tests of faults share."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from faults.dialogs import Stage

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def injector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """injector.c, compiled."""
    made = tmp_path_factory.mktemp("injector") / "injector.so"
    source = str(HERE / "injector.c")
    command = ["gcc", "-O2", "-g", "-fPIC", "-shared", "-U_FORTIFY_SOURCE", "-o", str(made), source]
    subprocess.run([*command, "-ldl"], check=True)
    return made


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, injector: Path) -> Stage:
    """dialog.c, compiled, and what makes its calls fail."""
    folder = tmp_path_factory.mktemp("dialogs")
    program = folder / "dialog"
    command = ["gcc", "-O2", "-g", "-o", str(program), str(HERE / "dialog.c")]
    subprocess.run(command, check=True)
    return Stage(program, injector, folder)


@pytest.fixture(scope="session")
def all_faults(request: pytest.FixtureRequest) -> bool:
    """Is every fault to be injected, not just some of them?"""
    return request.config.getoption("--faults") == "all"
