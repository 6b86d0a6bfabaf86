"""PostgreSQL as a workload. It refuses to run as root, so root has it run as `postgres`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_DEBIAN = Path("/usr/lib/postgresql")  # off PATH, one folder a version
_NAMES = ("postgres", "initdb", "pgbench")
_USER = "postgres"


def find(name: str) -> str | None:
    """One of its programs, in the newest version that Debian's packages put there."""
    if name not in _NAMES:
        return None
    found = sorted(_DEBIAN.glob(f"*/bin/{name}"), key=lambda path: float(path.parts[-3]))
    return str(found[-1]) if found else None


def prepare(folder: Path) -> list[list[str]]:
    """A fresh cluster."""
    commands = [["chown", _USER, str(folder)]] if os.geteuid() == 0 else []
    initdb = [_path("initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", _USER]
    return [*commands, [*_as_user(), *initdb, "--no-sync"]]


def server(folder: Path, port: int) -> list[str]:
    command = [_path("postgres"), "-D", str(folder / "data"), "-p", str(port), "-k", str(folder)]
    return [*_as_user(), *command, "-c", "listen_addresses=127.0.0.1", "-F"]


def fill(port: int) -> list[str]:
    return [_path("pgbench"), *_where("127.0.0.1", port), "-i", "-q", "postgres"]


def client(folder: Path, port: int, seconds: float, *, unix: bool) -> list[str]:
    where = _where(str(folder) if unix else "127.0.0.1", port)
    return [_path("pgbench"), *where, "-S", "-T", str(max(1, round(seconds))), "postgres"]


def _where(host: str, port: int) -> list[str]:
    return ["-h", host, "-p", str(port), "-U", _USER]


def _path(name: str) -> str:
    found = find(name) or shutil.which(name)
    assert found is not None, f"{name} was looked for before"
    return found


def _as_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
