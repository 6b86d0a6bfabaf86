"""Where a run takes place: a private folder, a broker of its own, and the environments that
plain and fused programs get."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loopfuse._bench.children import Child, running
from loopfuse._bench.sides import Side
from loopfuse._broker_start import answers
from loopfuse._errors import BenchError
from loopfuse._preload import LIBRARY_NAME, library_path, preload_environment

_MEASURE = Path(__file__).with_name("measure")
_BROKER_SECONDS = 10.0
_SPIN = "LOOPFUSE_SPIN_US"


@dataclass(frozen=True)
class Place:
    """Use `prepared()`."""

    folder: Path
    broker: Path
    """Its socket."""
    broker_pid: int

    @property
    def measure(self) -> str:
        """The measuring program."""
        return str(_MEASURE)

    def environment(self, side: Side) -> dict[str, str]:
        """For a program on this side. A plain one gets no library, even if we run under it."""
        plain = {k: v for k, v in os.environ.items() if not k.startswith("LOOPFUSE_")}
        if _SPIN in os.environ:  # the floor waits as loopfuse does
            plain[_SPIN] = os.environ[_SPIN]
        others = plain.pop("LD_PRELOAD", "").replace(":", " ").split()
        if kept := [path for path in others if Path(path).name != LIBRARY_NAME]:
            plain["LD_PRELOAD"] = ":".join(kept)
        if side.spin_us is not None:
            plain[_SPIN] = str(side.spin_us)
        return preload_environment(plain, self.broker) if side.fused else plain


@contextmanager
def prepared() -> Iterator[Place]:
    """The folder and the broker, until the end of the block. Raises BenchError."""
    for needed in (_MEASURE, library_path()):
        if not needed.is_file():
            raise BenchError(
                f"{needed} is missing",
                hint="It is built when loopfuse is installed: `pip install .`",
            )
    with tempfile.TemporaryDirectory(prefix="loopfuse-bench-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            # PostgreSQL runs as another user, and must reach the broker.
            folder.chmod(0o755)
        socket = folder / "broker.sock"
        with broker_at(socket) as broker:
            yield Place(folder, socket, broker.pid)


@contextmanager
def broker_at(socket: Path, *options: str) -> Iterator[Child]:
    """One that answers there, until the end of the block. Raises BenchError."""
    # Longer than any stretch of plain sides; it ends by itself if we are killed.
    bounds = ("--idle-exit", "600", "--log-level", "error")
    command = own_command("broker", "--socket", str(socket), *bounds, *options)
    with running(command, own_environment()) as broker:
        deadline = time.monotonic() + _BROKER_SECONDS
        while not answers(socket):
            if broker.ended() or time.monotonic() > deadline:
                raise broker.failure("did not come to listen")
            time.sleep(0.01)
        yield broker


def own_command(*words: str) -> list[str]:
    """A command of ours, in the environment `own_environment()`."""
    return [sys.executable, "-m", "loopfuse", *words]


def own_environment() -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    paths = [str(Path(entry).absolute()) for entry in sys.path if entry]
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}
