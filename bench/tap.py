"""python bench/tap.py MEASURE [ROUNDS [SECONDS]]: what a tap costs the programs that it watches.

MEASURE is the measuring program (build/dev/measure). One fused connection at a time, in turns:
untapped, tapped into a file, and tapped by a reader that is stopped, so that its rings are full.
Prints medians, and what part of the packets the tap got. LOOPFUSE_LIBRARY names the library.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopfuse._broker_start import start_unless_running
from loopfuse._preload import preload_environment

WORK = (("roundtrip", 1), ("roundtrip", 1024), ("stream", 64), ("stream", 16384))
MODES = ("untapped", "tapped", "reader stopped")


def line(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    said = process.stdout.readline()
    assert said.startswith(start), said
    return said


@contextmanager
def tapping(mode: str, broker: Path, seen: dict[str, int]) -> Iterator[None]:
    if mode == "untapped":
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "capture"
        tap = subprocess.Popen(
            [sys.executable, "-m", "loopfuse", "tap", "-w", str(file)],
            env={**os.environ, "LOOPFUSE_BROKER": str(broker)},
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (file.exists() and file.stat().st_size):
            assert tap.poll() is None
        if mode == "reader stopped":
            tap.send_signal(signal.SIGSTOP)
        yield
        tap.send_signal(signal.SIGCONT)
        tap.send_signal(signal.SIGINT)
        _, said = tap.communicate()
        found = re.search(r"(\d+) packets captured, (\d+) lost", said)
        assert found, said
        seen["captured"], seen["lost"] = int(found[1]), int(found[2])


def measured(
    program: str, environment: dict[str, str], work: str, size: int, seconds: float, mode: str
) -> tuple[float, dict[str, int]]:
    words = ["over=tcp", f"work={work}", f"size={size}"]
    options = {"env": environment, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen([program, "server", "at=0", *words], text=True, **options)  # type: ignore[call-overload]
    port = line(server, "ready").split()[1]
    more = [f"at={port}", f"seconds={seconds}", f"peer={server.pid}"]
    client = subprocess.Popen([program, "client", *words, *more], text=True, **options)  # type: ignore[call-overload]
    line(client, "warming")
    seen: dict[str, int] = {}
    with tapping(mode, Path(environment["LOOPFUSE_BROKER"]), seen):
        client.stdin.write("\n")
        client.stdin.flush()
        said = json.loads(line(client, "{"))
    client.communicate()
    server.communicate()
    if os.environ.get("VERBOSE"):
        print(said, file=sys.stderr)
    if work == "roundtrip":
        return said["latency_ns"]["p50"] / 1e3, seen
    return said["bytes"] / said["seconds"] / 1e9, seen


def main() -> None:
    program = str(Path(sys.argv[1]).absolute())
    rounds, seconds = int((sys.argv[2:] or ["5"])[0]), float((sys.argv[3:] or ["0.5"])[0])
    with tempfile.TemporaryDirectory() as folder:
        broker = Path(folder) / "broker.sock"
        start_unless_running(broker)
        environment = preload_environment(dict(os.environ), broker, eager=True)
        figures: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(
            lambda: defaultdict(list)
        )
        shares: dict[tuple[str, int], list[float]] = defaultdict(list)
        for number in range(rounds):
            for work, size in WORK:
                for mode in MODES if number % 2 else reversed(MODES):
                    figure, seen = measured(program, environment, work, size, seconds, mode)
                    figures[work, size][mode].append(figure)
                    if mode == "tapped":
                        shares[work, size].append(
                            seen["captured"] / max(1, seen["captured"] + seen["lost"])
                        )
        print("| work | " + " | ".join(MODES) + " | packets that the tap got |")
        print("|---|---|---|---|---|")
        for (work, size), by_mode in figures.items():
            unit = "us" if work == "roundtrip" else "GB/s"
            cells = [
                f"{statistics.median(by_mode[mode]):.2f} {unit} "
                f"({min(by_mode[mode]):.2f} to {max(by_mode[mode]):.2f})"
                for mode in MODES
            ]
            share = statistics.median(shares[work, size])
            print(f"| {work}, {size} B | " + " | ".join(cells) + f" | {share:.0%} |")


if __name__ == "__main__":
    main()
