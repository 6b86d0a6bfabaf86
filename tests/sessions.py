"""One way to run programs, plain or fused, and to ask what was fused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from broker_fixtures import BrokerProcess, eventually
from loopfuse._messages import Row
from loopfuse._preload import preload_environment
from sanitizers import loading_of

TIMEOUT = 60.0
BROKEN_INVARIANTS = Path(__file__).parent.parent / "build" / "invariants-broken.log"
"""What the invariants build has found in any program of a run, a line each: the run fails then."""


_handed_out: dict[int, datetime] = {}
"""When each port was; connections to it from before are another test's."""


_held: deque[socket.socket] = deque()
_MOST_HELD = 64


def free_port(*, held: bool = True) -> int:
    """A port for a server that sets SO_REUSEADDR. Until it listens, and for some time after, a
    socket that is bound there keeps the kernel from giving the port to anybody else, such as the
    tests beside this one. Not `held`: for a server that does not set it."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _held.append(holder)
    port: int = holder.getsockname()[1]
    if not held:
        _held.pop().close()
    elif len(_held) > _MOST_HELD:
        _held.popleft().close()
    _handed_out[port] = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    return port


def is_of_this_test(row: Row) -> bool:
    """Not of another test that had the same port before."""
    began = datetime.fromisoformat(row.since.replace("Z", "+00:00"))
    return began >= _handed_out.get(row.server.port, began)


def listens(port: int, pid: int | str = "self") -> bool:
    """Is somebody listening there, in the network namespace of that process? Looks at the kernel's
    table; connects to nobody."""
    wanted = f":{port:04X}"
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
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
        extra["LOOPFUSE_INVARIANTS_LOG"] = str(BROKEN_INVARIANTS)
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

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """A program that one can talk to, in a process group of its own: `stop_group` ends it."""
        return subprocess.Popen(
            command,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

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
        rows = [row for row in rows if is_of_this_test(row)]
        return [row for row in rows if row.bytes_to_server + row.bytes_to_client > 0]


def stop_group(
    process: subprocess.Popen[bytes] | subprocess.Popen[str], grace: float = 5.0
) -> None:
    """Ends a process that leads its own session, and everything in its group; closes its pipes."""
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
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
