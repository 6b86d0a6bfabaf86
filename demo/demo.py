"""The main job, seen: redis-server and redis-benchmark, plain beside fused, one run.

Starts two servers (one as it is, one under ``loopfuse run``), runs the client against each
in turns, and prints medians, a table and a plot.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

LOOPFUSE = str(Path(sys.executable).with_name("loopfuse"))
OUTPUT = Path("build/demo")
START_TIMEOUT_S = 10.0
OPTIONS = ("--bind", "127.0.0.1", "--save", "")


@dataclass(frozen=True)
class Work:
    """One setting of redis-benchmark."""

    title: str
    options: tuple[str, ...]


WORKS = (
    Work("GET, 1 client", ("-t", "get", "-c", "1", "-n", "40000")),
    Work("GET, 50 clients", ("-t", "get", "-c", "50", "-n", "100000")),
    Work("GET, 50 clients, pipelined by 16", ("-t", "get", "-c", "50", "-P", "16", "-n", "500000")),
)


@dataclass
class Result:
    """Requests per second of each round."""

    plain: list[float] = field(default_factory=list)
    fused: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.fused) / statistics.median(self.plain)


class Server:
    """A redis-server of our own on a free port; ``prefix`` goes in front of its command."""

    def __init__(self, directory: Path, prefix: tuple[str, ...]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [*prefix, "redis-server", "--port", str(self.port), *OPTIONS, "--dir", str(directory)],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    sys.exit(f"demo: redis-server did not start on port {self.port}")
                time.sleep(0.05)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_TIMEOUT_S)


def measure(work: Work, port: int, prefix: tuple[str, ...]) -> float:
    """Requests per second of one run of redis-benchmark."""
    command = [*prefix, "redis-benchmark", "-p", str(port), "-q", *work.options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.findall(r"([\d.]+) requests per second", done.stdout)
    if done.returncode != 0 or not found:
        sys.exit(f"demo: `{' '.join(command)}` failed: {done.stderr.strip() or done.stdout}")
    return float(found[-1])


def fused_connections(port: int) -> tuple[int, int]:
    """Connections to this port that were fused, and payload bytes that took the rings."""
    rows = json.loads(subprocess.check_output([LOOPFUSE, "ps", "--json"], text=True))
    ours = [r for r in rows if r["server"]["port"] == port]
    carried = [r["bytes_to_server"] + r["bytes_to_client"] for r in ours]
    return sum(1 for n in carried if n), sum(carried)


def draw(results: dict[str, Result], machine: str) -> None:
    """The plot, as SVG and PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(11, 4.2))
    for axis, (title, result) in zip(axes, results.items(), strict=True):
        values = [statistics.median(result.plain), statistics.median(result.fused)]
        bars = axis.bar(["plain TCP", "fused"], values, color=["#9aa5b1", "#d9480f"], width=0.6)
        axis.bar_label(bars, labels=[f"{v / 1000:,.0f} k/s" for v in values], padding=3)
        axis.set_title(f"{title}\n{result.ratio:.1f} x", fontsize=10)
        axis.set_ylim(0, max(values) * 1.15)
        axis.set_yticks([])
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle("redis-benchmark against redis-server: the same two programs", fontsize=12)
    figure.text(0.5, 0.01, machine, ha="center", fontsize=8, color="#667085")
    figure.tight_layout(rect=(0, 0.04, 1, 0.97))
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for suffix in ("svg", "png"):
        figure.savefig(OUTPUT / f"redis.{suffix}", dpi=150)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if not shutil.which("redis-server") or not shutil.which("redis-benchmark"):
        sys.exit("demo: redis-server and redis-benchmark are needed: scripts/debian demo")
    console = Console()
    results = {work.title: Result() for work in WORKS}
    run = (LOOPFUSE, "run", "--")
    with tempfile.TemporaryDirectory() as directory:
        plain, fused = Server(Path(directory), ()), Server(Path(directory), run)
        try:
            for number in range(rounds):
                for work in WORKS:
                    console.print(f"round {number + 1} of {rounds}: {work.title}", style="dim")
                    results[work.title].plain.append(measure(work, plain.port, ()))
                    results[work.title].fused.append(measure(work, fused.port, run))
            connections, carried = fused_connections(fused.port)
        finally:
            plain.stop()
            fused.stop()
    table = Table(title="redis-benchmark, requests per second (medians)")
    for column in ("work", "plain TCP", "fused", "ratio"):
        table.add_column(column, justify="left" if column == "work" else "right")
    for title, result in results.items():
        medians = [statistics.median(result.plain), statistics.median(result.fused)]
        table.add_row(title, *(f"{m:,.0f}" for m in medians), f"{result.ratio:.1f} x")
    console.print(table)
    console.print(
        f"{connections} of those connections were fused, by `loopfuse ps`; "
        f"{carried / 1e6:,.0f} MB of payload took the rings."
    )
    if connections == 0:
        sys.exit("demo: no connection was fused; `loopfuse doctor` may say why")
    uname = os.uname()
    cpus = len(os.sched_getaffinity(0))
    draw(results, f"Linux {uname.release}, {uname.machine}, {cpus} CPUs, {rounds} rounds")
    console.print(f"Plot: {OUTPUT / 'redis.svg'} and {OUTPUT / 'redis.png'}")


if __name__ == "__main__":
    main()
