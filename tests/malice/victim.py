"""A server process (victim.c) that treats each connection as a test wants it to."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loopfuse._preload import library_path
from sessions import Session

PATIENCE = 20.0


def sanitized() -> Path:
    """The library under test; with sanitizers where CI has built it so."""
    return Path(os.environ.get("LOOPFUSE_ASAN_LIBRARY") or library_path())


class Victim:
    """The process, and what it says."""

    def __init__(self, program: Path, session: Session) -> None:
        self._program = program
        self._session = session
        self.process = subprocess.Popen(
            [*session.prefix, str(program)],
            env=session.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self._said: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._listen)
        self._reader.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(line.strip())

    def order(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def hears(self, start: str, seconds: float = PATIENCE) -> list[str] | None:
        """The words of the next line that starts so; None: none came."""
        try:
            while True:
                line = self._said.get(timeout=seconds)
                if line.startswith(start):
                    return line.split()
        except queue.Empty:
            return None

    def state(self) -> list[int]:
        """How many descriptors and threads it has."""
        self.order("state")
        words = self.hears("state")
        assert words is not None
        return [int(word) for word in words[1:]]

    @contextmanager
    def talker(self, session: Session, number: int) -> Iterator[None]:
        """A client that compares what comes back; at the end all must have been right."""
        command = [*session.prefix, str(self._program), "talk", str(self.port)]
        self.order(f"serve {number} echo 0")
        process = session.start(command)
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        try:
            yield
            said, _ = process.communicate("", timeout=PATIENCE)
            assert process.returncode == 0
            assert int(said.split()[1]) > 0, said
        finally:
            process.kill()
            process.wait()

    def stop(self) -> str:
        """Ends it; what it wrote to standard error."""
        assert self.process.stdin is not None and self.process.stderr is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
        said = self.process.stderr.read()
        self.process.stderr.close()
        return said
