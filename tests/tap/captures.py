"""A `loopfuse tap` of one's own, and tshark to judge what it wrote."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from broker_fixtures import START, BrokerProcess, eventually
from commands import LOOPFUSE
from conftest import tool
from holdings import SEGMENT
from loopfuse._segments import read_segment

MARKS = (
    "tcp.analysis.flags || _ws.malformed || _ws.expert.severity >= 0x00600000"
    " || tcp.checksum.status == 0 || ip.checksum.status == 0"
)
"""Lost, repeated, reordered, broken: what no capture of ours may show."""


class Capture:
    """`loopfuse tap -w FILE` as a child, which has been told by the broker that it taps."""

    def __init__(self, broker: Path, file: Path, *arguments: str, prefix: Sequence[str] = ()):
        self.file = file
        self.said = ""
        command = [*prefix, *LOOPFUSE, "tap", "-w", str(file), *arguments]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "LOOPFUSE_BROKER": str(broker)},
            stderr=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: self._begun() or self.process.poll() is not None, "it taps", START)

    def _begun(self) -> bool:
        return self.file.exists() and self.file.stat().st_size > 0

    def end(self, number: int = signal.SIGINT) -> int:
        """Its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            _, said = self.process.communicate(timeout=60)
            self.said += said
        finally:
            self.process.kill()
            self.process.wait()
        assert "Traceback" not in self.said, self.said
        return self.process.returncode

    def number(self, words: str) -> int:
        """The number in front of these words of what it said at the end."""
        before = self.said.split(words)[0]
        return int(before.split()[-1])


def await_tap(broker: BrokerProcess, connection: int) -> None:
    """Until the ends of that connection are to record what they send."""

    def is_tapped() -> bool:
        for entry in Path(f"/proc/{broker.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if SEGMENT not in str(entry.readlink()):
                    continue
                with entry.open("rb") as file:
                    segment = read_segment(file.fileno())
                if segment.pair_id == connection:
                    return segment.taps != 0
        return False

    eventually(is_tapped, f"connection {connection} is tapped", START)


@contextmanager
def capturing(
    broker: Path, file: Path, *arguments: str, prefix: Sequence[str] = ()
) -> Iterator[Capture]:
    """Captures meanwhile; what follows has everything in the file."""
    capture = Capture(broker, file, *arguments, prefix=prefix)
    try:
        yield capture
    finally:
        code = capture.end()
    assert code == 0, capture.said


def tshark(file: Path, *arguments: str) -> list[str]:
    """The lines it prints; it must not complain of the file."""
    command = [tool("tshark"), "-n", "-r", str(file)]
    command += ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in done.stderr.splitlines() if not line.startswith("Running as user")]
    assert done.returncode == 0 and not said, done.stderr
    return done.stdout.splitlines()


def fields(file: Path, names: Sequence[str], *arguments: str) -> list[list[str]]:
    """These fields of each packet."""
    wanted = [word for name in names for word in ("-e", name)]
    return [line.split("\t") for line in tshark(file, "-T", "fields", *wanted, *arguments)]


def assert_clean(file: Path, *arguments: str) -> None:
    """Not one packet bears a mark."""
    marked = tshark(file, "-Y", MARKS, *arguments)
    assert not marked, marked[:5]


def streams(file: Path) -> int:
    return len({row[0] for row in fields(file, ["tcp.stream"])})


def reassembled(file: Path) -> tuple[bytes, bytes]:
    """What tshark puts together of the first connection: to the server, to the client."""
    lines = tshark(file, "-q", "-z", "follow,tcp,raw,0")
    data = [line for line in lines if line and set(line.strip()) <= set("0123456789abcdef")]
    to_server = b"".join(bytes.fromhex(line) for line in data if not line.startswith("\t"))
    to_client = b"".join(bytes.fromhex(line) for line in data if line.startswith("\t"))
    return to_server, to_client


def digests(captured: tuple[bytes, bytes]) -> tuple[str, str]:
    """As the parties tell theirs: to the server, to the client."""
    to_server, to_client = (hashlib.blake2b(data).hexdigest() for data in captured)
    return to_server, to_client
