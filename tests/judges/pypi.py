"""Suites of PyPI projects: the tests of the source package against the wheel, under pytest."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from judges.downloads import pypi_environment, pypi_source
from judges.suite import FusedCounter, run_suite
from judges.verdict import Verdict, read_junit
from sessions import Session

_PYTEST = ("pytest==9.2.0", "pytest-timeout==2.4.0")
_LIMIT = 600.0
_EACH = 120
"""Seconds for a single test."""


@dataclass(frozen=True)
class PypiSuite:
    project: str
    version: str
    sha256: str
    """Of the source package."""
    needs: tuple[str, ...]
    files: tuple[str, ...] = ("tests",)
    """What the tests need of the source package. No more: the project's own modules would be
    imported from it instead of from the wheel."""

    def judge(self, module: str, session: Session) -> Verdict:
        """Runs one module, or one class of it. Raises Unavailable where it can't be had."""
        source = pypi_source(self.project, self.version, self.sha256)
        pin = f"{self.project}=={self.version}"
        python = pypi_environment(f"{self.project}-{self.version}", pin, *_PYTEST, *self.needs)
        with tempfile.TemporaryDirectory(prefix="loopfuse-judge-") as directory:
            for name in self.files:
                copy = shutil.copytree if (source / name).is_dir() else shutil.copy
                copy(source / name, Path(directory) / name)
            report = Path(directory) / "report.xml"
            command = [str(python), "-m", "pytest", "-q", f"--timeout={_EACH}"]
            command += [f"--junit-xml={report}", _place(module)]
            counter = FusedCounter(session)
            said = run_suite(command, session, Path(directory), _LIMIT)
            fused = counter.stop()
            assert report.exists(), f"{module} wrote no report\n{said[-3000:]}"
            verdict = read_junit(report)
        verdict.fused = fused
        return verdict


def _place(module: str) -> str:
    name, colons, within = module.partition("::")
    return f"tests/{name}.py{colons}{within}"
