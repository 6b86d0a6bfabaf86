"""Round trips and streams, plain beside fused, sides alternated in one run: medians.

.venv/bin/python bench/compare.py [ROUNDS]
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
LOOPFUSE = str(Path(sys.executable).with_name("loopfuse"))
SECONDS = "0.7"
WORKS = [("rtt", n) for n in (1, 64, 1024, 16384, 65536)] + [
    ("stream", n) for n in (64, 1024, 16384, 131072)
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    with tempfile.TemporaryDirectory() as directory:
        pair = str(Path(directory) / "pair")
        subprocess.run(["gcc", "-O2", "-o", pair, str(HERE / "pair.c")], check=True)
        sides = {"plain": [], "fused": [LOOPFUSE, "run", "--"]}
        ports = {name: free_port() for name in sides}
        servers = [
            subprocess.Popen([*prefix, pair, "server", str(ports[name])])
            for name, prefix in sides.items()
        ]
        time.sleep(1)
        results: dict[tuple[str, int, str], list[float]] = {}
        try:
            for _ in range(rounds):
                for kind, size in WORKS:
                    for name, prefix in sides.items():
                        command = [*prefix, pair, "client", str(ports[name])]
                        said = subprocess.check_output([*command, kind, str(size), SECONDS])
                        results.setdefault((kind, size, name), []).append(float(said))
        finally:
            for server in servers:
                server.kill()
                server.wait()
    table = Table(title=f"medians of {rounds} rounds, sides alternated (lowest to highest)")
    for column in ("work", "plain TCP", "fused", "ratio"):
        table.add_column(column, justify="left" if column == "work" else "right")
    for kind, size in WORKS:
        plain, fused = results[kind, size, "plain"], results[kind, size, "fused"]
        ratio = statistics.median(fused) / statistics.median(plain)
        cells = [
            f"{statistics.median(v) / scale:.2f} {unit} "
            f"({min(v) / scale:.2f} to {max(v) / scale:.2f})"
            for v in (plain, fused)
            for scale, unit in [(1, "us") if kind == "rtt" else (1e9, "GB/s")]
        ]
        table.add_row(f"{kind} {size} B", *cells, f"{1 / ratio if kind == 'rtt' else ratio:.1f} x")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
