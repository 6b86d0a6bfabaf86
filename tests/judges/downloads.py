"""Suites and what they need, fetched once into build/judges and pinned by version.

Package managers are asked as this machine has them set up; no address is named here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

CACHE = Path(__file__).parent.parent.parent / "build" / "judges"
_PATIENCE = 300.0


class Unavailable(Exception):
    """A suite can't be had here; the message says why."""


def pypi_source(project: str, version: str, sha256: str) -> Path:
    """The unpacked source package of a PyPI project."""

    def fetch(directory: Path) -> None:
        pin = directory / "pin.txt"
        pin.write_text(f"{project}=={version} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command += ["--no-binary", project, "--dest", str(directory), "-r", str(pin)]
        _run(command, directory)
        (archive,) = directory.glob("*.tar.gz")
        shutil.unpack_archive(archive, directory)
        (unpacked,) = (entry for entry in directory.iterdir() if entry.is_dir())
        for entry in unpacked.iterdir():
            entry.rename(directory / entry.name)

    return _cached(f"{project}-{version}-source", fetch)


def pypi_environment(name: str, *requirements: str) -> Path:
    """The interpreter of a virtual environment that has the requirements."""

    def fetch(directory: Path) -> None:
        venv.create(directory, with_pip=True)
        command = [str(directory / "bin" / "python"), "-m", "pip", "install"]
        _run([*command, "--only-binary", ":all:", *requirements], directory)

    python = "python{}.{}".format(*sys.version_info)
    return _cached(f"{name}-{python}", fetch) / "bin" / "python"


def debian_source(binary: str) -> Path:
    """The unpacked source package that an installed Debian package was built from."""
    asked = "${source:Package} ${source:Version}"
    answer = _run(["dpkg-query", "--show", f"--showformat={asked}", binary], Path("/"))
    source, version = answer.split()

    def fetch(directory: Path) -> None:
        _run(["apt-get", *_private_apt(directory), "update"], directory)
        wanted = f"{source}={version}"
        _run(["apt-get", *_private_apt(directory), "source", wanted], directory)
        (unpacked,) = directory.glob(f"{source}-*/")
        for entry in unpacked.iterdir():
            entry.rename(directory / entry.name)

    return _cached(f"{source}-{re.sub('[^0-9a-z.+~-]', '-', version)}-source", fetch)


def _private_apt(directory: Path) -> list[str]:
    """Options under which apt-get knows the source packages of the Debian archives that this
    machine installs from, and leaves the machine's own lists alone."""
    targets = ["Created-By: Packages", "Origin: Debian"]
    line = "deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)"
    sources = directory / "sources.list"
    if not sources.exists():
        sources.write_text(_run(["apt-get", "indextargets", "--format", line, *targets], directory))
    state = directory / "apt"
    (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    options = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": state / "lists",
        "Dir::Cache": state,
    }
    return [f"-o{name}={value}" for name, value in options.items()]


def _cached(name: str, fetch: Callable[[Path], None]) -> Path:
    """The directory that `fetch` fills, unless an earlier run has; never one half filled."""
    place = CACHE / name
    if (place / ".complete").exists():
        return place
    # It is filled where it stays: a virtual environment can't be moved.
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        fetch(place)
    except Unavailable:
        shutil.rmtree(place, ignore_errors=True)
        raise
    (place / ".complete").touch()
    return place


def _run(command: list[str], directory: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "LOOPFUSE_"))}
    try:
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
            said.seek(0)
            complaint = said.read().strip()[-600:]
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is missing: scripts/debian test") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"took more than {_PATIENCE:.0f} s: {' '.join(command)}") from None
    if done.returncode != 0:
        raise Unavailable(f"no network? {' '.join(command)} said: {complaint}")
    return done.stdout
