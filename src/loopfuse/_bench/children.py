"""Processes that the benchmark starts: each bounded in time, and ended with all it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from loopfuse._bench.processes import tree_of
from loopfuse._errors import BenchError

_GRACE = 5.0


class Child:
    """A process in a session of its own. Use `running()`."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        fds: Sequence[int] = (),
        cpu: int | None = None,
        stop_with: int = signal.SIGTERM,
    ) -> None:
        self.command = list(command)
        self._stop_with = stop_with
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - stop() closes it
        before = os.sched_getaffinity(0)
        try:
            # Before it starts, because the library looks at its CPUs when it is loaded.
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
            self._process = subprocess.Popen(
                self.command,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                pass_fds=fds,
                start_new_session=True,
                cwd="/",
            )
        except OSError as error:
            raise BenchError(f"{command[0]} can't be started: {error.strerror}") from error
        finally:
            os.sched_setaffinity(0, before)
        self._said = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    def tell(self) -> None:
        """A line on its standard input."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def pause(self) -> None:
        """It does nothing until `resume()`."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def drain(self) -> bytes:
        """What it has printed by now, and nobody has taken."""
        while self._read(0):
            pass
        said, self._said = self._said, b""
        return said

    def wait_for_output(self, seconds: float) -> None:
        """Returns when there is some. Raises BenchError if it ends or takes longer."""
        if not self._said and not self._read(seconds):
            raise self.failure(f"said nothing for {seconds:.0f} s")

    def line(self, seconds: float) -> str:
        """The next line it prints. Raises BenchError if it ends or takes longer."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._said:
            if not self._read(deadline - time.monotonic()):
                raise self.failure(f"said nothing for {seconds:.0f} s")
        line, self._said = self._said.split(b"\n", 1)
        return line.decode(errors="replace")

    def finish(self, seconds: float) -> str:
        """Ends its standard input; returns the rest of what it prints once it has left in
        peace. Raises BenchError."""
        assert self._process.stdin is not None
        deadline = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        while self._read(deadline - time.monotonic()):
            pass
        try:
            code = self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {seconds:.0f} s") from None
        if code != 0:
            raise self.failure(f"failed ({_ending(code)})")
        return self._said.decode(errors="replace")

    def _read(self, seconds: float) -> bool:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        if not select.select([fd], [], [], max(0.0, seconds))[0]:
            return False
        piece = os.read(fd, 65536)
        self._said += piece
        return bool(piece)

    def failure(self, what: str) -> BenchError:
        """What it did, as an error that quotes its last words."""
        self._errors.seek(0)
        lines = (self._errors.read().strip() or self._said.strip()).splitlines()
        said = f"; it said: {lines[-1].decode(errors='replace')}" if lines else ""
        return BenchError(f"`{' '.join(self.command)}` {what}{said}")

    def stop(self) -> None:
        """Ends it and all its descendants."""
        for number in (self._stop_with, signal.SIGKILL):
            for pid in tree_of(self.pid) if self._process.poll() is None else ():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
                    os.kill(pid, signal.SIGCONT)  # it may be paused
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE)
                break
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _ending(code: int) -> str:
    return f"exit status {code}" if code > 0 else signal.Signals(-code).name


@contextmanager
def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    fds: Sequence[int] = (),
    cpu: int | None = None,
    stop_with: int = signal.SIGTERM,
) -> Iterator[Child]:
    """The process, until the end of the block. Raises BenchError if it can't be started."""
    child = Child(command, environment, fds=fds, cpu=cpu, stop_with=stop_with)
    try:
        yield child
    finally:
        child.stop()
