"""The pictures in docs/, as SVG: what `loopfuse top`, `tap` and `bench` show of programs that
really run.

The first two under a broker of their own: redis with four clients, a stream, a sleeper that is sent
something now and then, and one client without loopfuse.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text
from textual.pilot import Pilot

from loopfuse._broker_start import answers
from loopfuse._top.ordering import sort_named
from loopfuse._top.screen import Top
from loopfuse._top.source import Source

SIZE = (80, 16)
TALL = (80, 40)
BENCH_LINES = 34
"""One kind of work: four rows of its sides."""
WARM_UP_S = 3.0
PORT = "7379"
LOOPFUSE = (sys.executable, "-m", "loopfuse")

# Small programs, named as they appear in the picture.
STREAM = """
import socket, sys, threading
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    sock, _ = listener.accept()
    while sock.recv(65536): pass
"""
SEND = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True: sock.sendall(bytes(65536))
"""
TICK = """
import socket, sys, time
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    sock.sendall(b"tick")
    time.sleep(0.01)
"""


class Programs:
    """Starts programs; all of them end with it."""

    def __init__(self, folder: Path) -> None:
        self.broker = folder / "broker.sock"
        self._folder = folder
        self._processes: list[subprocess.Popen[str]] = []
        self._environment = {**os.environ, "LOOPFUSE_BROKER": str(self.broker)}

    def start(self, *command: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env=self._environment,
            stdout=output,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def named(self, name: str, code: str, *arguments: str, fused: bool = True) -> int:
        """Runs Python code under a name of its own; the number on its first line, if it is a
        server's."""
        # The kernel calls a program as its file is called.
        link = self._folder / name
        if not link.exists():
            shutil.copy(os.path.realpath(sys.executable), link)
        words = (*LOOPFUSE, "run", "--") if fused else ()
        process = self.start(*words, str(link), "-c", code, *arguments, output=subprocess.PIPE)
        if arguments:
            return 0
        assert process.stdout is not None
        return int(process.stdout.readline())

    def stop(self) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(10)


@contextlib.contextmanager
def busy_programs() -> Iterator[Path]:
    """The broker's path, while they run."""
    with tempfile.TemporaryDirectory(prefix="loopfuse-pictures-") as folder:
        programs = Programs(Path(folder))
        try:
            programs.start(*LOOPFUSE, "broker", "--socket", str(programs.broker))
            wait_for(programs.broker)
            server = ("redis-server", "--port", PORT, "--save", "")
            programs.start(*LOOPFUSE, "run", "--", *server)
            for receiver, sender, code, fused in (
                ("archive", "backup", SEND, True),
                ("collector", "sensor", TICK, True),
                ("journal", "stranger", TICK, False),
            ):
                programs.named(sender, code, str(programs.named(receiver, STREAM)), fused=fused)
            client = ("redis-benchmark", "-p", PORT, "-c", "4", "-n", "1000000000", "-t", "get")
            time.sleep(0.5)
            programs.start(*LOOPFUSE, "run", "--", *client)
            time.sleep(WARM_UP_S)
            yield programs.broker
        finally:
            programs.stop()


def wait_for(broker: Path) -> None:
    deadline = time.monotonic() + 10
    while not (broker.exists() and answers(broker)):
        if time.monotonic() > deadline:
            sys.exit("pictures: the broker does not come to listen")
        time.sleep(0.02)


def draw_words(command: str, path: Path, most: int | None = None, **environment: str) -> None:
    """One picture, of what a shell's command writes to a terminal, or the first lines of it."""
    width, height = SIZE
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    process = subprocess.Popen(
        ["sh", "-c", command],
        env={**os.environ, "TERM": "xterm-256color", **environment},
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    said = "".join(written_to(ours).splitlines(keepends=True)[:most])
    if process.wait() != 0:
        sys.exit(f"pictures: `{command}` failed")
    terminal = Console(record=True, width=width, file=io.StringIO())
    terminal.print(Text(f"$ {command}\n"), Text.from_ansi(said), sep="")
    path.write_text(terminal.export_svg(title=command.partition("|")[0].strip()))
    print(f"The picture: {path}")


def written_to(terminal: int) -> str:
    """All of it, until nobody can write to it any more."""
    said = b""
    with contextlib.suppress(OSError):  # EIO: the end
        while chunk := os.read(terminal, 65536):
            said += chunk
    os.close(terminal)
    return said.decode().replace("\r\n", "\n")


async def draw(broker: Path, size: tuple[int, int], keys: list[str], path: Path) -> None:
    """One picture, of what is there after some looks and these keys."""
    app = Top(Source(broker), sort_named("rate"), "", pairs=False, delay=1.0)
    async with app.run_test(size=size) as pilot:
        await looks(pilot)
        await pilot.press(*keys)
        await looks(pilot)
        path.write_text(app.export_screenshot(title="loopfuse top"))
    print(f"The picture: {path}")


async def looks(pilot: Pilot[None]) -> None:
    await pilot.pause(2.5)


async def draw_all(broker: Path, folder: Path) -> None:
    await draw(broker, SIZE, [], folder / "top.svg")
    # The slowest to wake up: the sleeper.
    await draw(broker, TALL, ["w", "home", "enter"], folder / "top-detail.svg")


def main() -> None:
    folder = Path(__file__).parent.parent / "docs"
    needed = ("redis-server", "redis-benchmark", "tshark")
    if missing := [name for name in needed if not shutil.which(name)]:
        sys.exit(f"pictures: {', '.join(missing)} not found: scripts/debian demo test")
    with busy_programs() as broker:
        asyncio.run(draw_all(broker, folder))
        tap = f"loopfuse tap -c 8 -w - port {PORT} | tshark -d tcp.port=={PORT},resp -r -"
        draw_words(tap, folder / "tap.svg", LOOPFUSE_BROKER=str(broker))
    draw_words("loopfuse bench --quick --only roundtrip", folder / "bench.svg", most=BENCH_LINES)


if __name__ == "__main__":
    main()
