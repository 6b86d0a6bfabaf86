"""One way to run programs, plain or fused, and to ask what was fused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from broker_fixtures import BrokerProcess, eventually
from loopfuse._messages import Row
from loopfuse._preload import preload_environment
from sanitizers import loading_of

TIMEOUT = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def listens(port: int) -> bool:
    """Is somebody listening there? Looks at the kernel's table; connects to nobody."""
    wanted = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[1].endswith(wanted):
                return True
    return False


class Session:
    """An environment to run programs in; ``broker`` is ``None`` for a plain one."""

    def __init__(self, extra: dict[str, str], broker: BrokerProcess | None) -> None:
        base = {k: v for k, v in os.environ.items() if not k.startswith("LOOPFUSE_")}
        self.environment = base | extra
        self.broker = broker
        self.prefix: list[str] = []
        """Words to put before a command, for what the library is built with."""
        self.eager = extra.get("LOOPFUSE_EAGER") == "1"

    @classmethod
    def under(cls, library: Path, broker: BrokerProcess, *, eager: bool) -> Session:
        extra = preload_environment({}, broker.path, eager=eager)
        loading = loading_of(library)
        extra |= loading.environment
        extra["LD_PRELOAD"] = ":".join(loading.preload)
        session = cls(extra, broker)
        session.prefix = loading.prefix
        return session

    def run(
        self, command: Sequence[str], *, timeout: float = TIMEOUT, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    @contextmanager
    def server(
        self, command: Sequence[str], port: int, **options: object
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A server in a process group of its own, killed with all its children at the end."""
        process = subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            **options,  # type: ignore[call-overload]
        )
        try:
            eventually(lambda: listens(port) or process.poll() is not None, f"{command} listens")
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            yield process
        finally:
            stop_group(process)

    def fused_rows(self, port: int) -> list[Row]:
        """Connections to this server port that carried payload in rings."""
        if self.broker is None:
            return []
        rows = [row for row in self.broker.rows() if row.server.port == port]
        return [row for row in rows if row.bytes_to_server + row.bytes_to_client > 0]


def stop_group(
    process: subprocess.Popen[bytes] | subprocess.Popen[str], grace: float = 5.0
) -> None:
    """Ends a process that leads its own session, and everything in its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + grace
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if process.poll() is not None and number == signal.SIGKILL:
            break
    process.wait(grace)
