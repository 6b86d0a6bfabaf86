"""What an idle fused connection costs in memory, both ends together, beyond plain TCP.

    .venv/bin/python bench/memory.py [CONNECTIONS]

Counts shared memory, page tables and the kernel's slabs of the whole machine (so let it be
idle), and the private memory of both programs, plain and fused; prints the difference for
one connection, after few short messages and after each ring was once written all through.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LOOPFUSE = str(Path(sys.executable).with_name("loopfuse"))
SOURCE = Path(__file__).parent.parent / "tests" / "programs" / "many.c"
KERNEL = ("Shmem", "PageTables", "Slab", "KernelStack")


def kilobytes(file: Path, names: tuple[str, ...]) -> int:
    """The sum of these lines of a /proc file."""
    found = re.findall(r"^(\w+): +(\d+) kB$", file.read_text(), re.MULTILINE)
    return sum(int(value) for name, value in found if name in names)


def private(pid: int) -> int:
    names = ("Private_Dirty", "Private_Clean")
    return kilobytes(Path(f"/proc/{pid}/smaps_rollup"), names)


def measure(many: str, prefix: list[str], connections: int, rounds: int) -> float:
    """Kilobytes in use while so many connections idle after so many messages each."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    before = kilobytes(Path("/proc/meminfo"), KERNEL)
    limit = ["sh", "-c", 'ulimit -n 20000 && exec "$@"', "sh", *prefix, many]
    server = subprocess.Popen([*limit, "server", port])
    time.sleep(1)
    command = [*limit, "client", port, str(connections), str(rounds), "hold"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    try:
        assert client.stdout.readline() == "ready\n"
        time.sleep(1)
        after = kilobytes(Path("/proc/meminfo"), KERNEL)
        return after - before + private(server.pid) + private(client.pid)
    finally:
        client.communicate("\n")
        server.kill()
        server.wait()
        time.sleep(1)


def main() -> None:
    connections = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as directory:
        many = str(Path(directory) / "many")
        subprocess.run(["gcc", "-O2", "-o", many, str(SOURCE)], check=True)
        subprocess.run([LOOPFUSE, "run", "true"], check=True)
        for title, rounds in (("few short messages", 60), ("rings written through", 4500)):
            plain = measure(many, [], connections, rounds)
            fused = measure(many, [LOOPFUSE, "run", "--"], connections, rounds)
            extra = (fused - plain) / connections
            print(f"{title}: plain {plain} kB, fused {fused} kB, {extra:.1f} kB a connection more")


if __name__ == "__main__":
    main()
