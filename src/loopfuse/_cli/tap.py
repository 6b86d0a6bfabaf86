"""``loopfuse tap``."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from loopfuse._tap.packet import Packet
    from loopfuse._tap.session import Tap


@click.command()
@click.option("-w", "--write", "target", metavar="FILE", help="Write pcapng there; -: to stdout.")
@click.option("-c", "--count", type=click.IntRange(min=1), help="End after so many packets.")
@click.option("-s", "--snap", type=click.IntRange(min=0), default=262144, show_default=True,
              help="Keep so many bytes of each packet's payload.")  # fmt: skip
@click.option("-B", "--buffer", type=click.IntRange(min=1, max=256), default=16, metavar="MIB",
              show_default=True, help="Room for what is not written yet.")  # fmt: skip
@click.option("--id", "ids", type=int, multiple=True, help="Only the connection with this ID.")
@click.option("--pid", "pids", type=int, multiple=True, help="Only connections of this process.")
@click.option("--port", "ports", type=click.IntRange(0, 65535), multiple=True,
              help="Only connections with this port.")  # fmt: skip
@click.argument("filter", nargs=-1, metavar="[FILTER]")
def command(
    target: str | None,
    count: int | None,
    snap: int,
    buffer: int,
    ids: tuple[int, ...],
    pids: tuple[int, ...],
    ports: tuple[int, ...],
    filter: tuple[str, ...],
) -> None:
    """Capture what fused connections carry, which tcpdump does not see.

    Prints a line for each packet, without payload; with -w writes a capture that Wireshark
    reads, for example `loopfuse tap -w - | tshark -r -`. FILTER is in tcpdump's language
    (pcap-filter(7)): `port 6379`. Ends with Ctrl-C. --id, --pid and --port leave all other
    connections alone; a FILTER chooses among the packets of those that are captured.

    Exit status: 0, also when the broker or the reader of the capture leaves first; 2 if the tap
    can't begin or the capture can't be written.
    """
    from loopfuse._errors import LoopfuseError
    from loopfuse._tap.session import tap

    text = " ".join(filter) or None
    if target == "-" and sys.stdout.isatty():
        raise click.UsageError("A capture is no text for a terminal: redirect it, or use -w FILE.")
    try:
        # The tap first: a filter with a mistake must not cost a file.
        with tap(text, ids=ids, pids=pids, ports=ports, snap=snap, buffer=buffer << 20) as packets:
            output = None if target is None else _open(target)
            _end_on_signals(packets)
            _warn_of_foreign(packets, ids)
            _capture(packets, count, output, snap, text)
            if packets.ended is not None:
                click.echo(f"loopfuse: {packets.ended}", err=True)
    except LoopfuseError as error:
        raise click.UsageError(str(error)) from error


def _open(target: str) -> int:
    """The file's descriptor. Payload goes into it: it is for the user alone."""
    if target == "-":
        return sys.stdout.fileno()
    path = Path(target)
    try:
        # Anew, not over an old file: that one somebody may have open.
        if path.is_file() and not path.is_symlink():
            path.unlink()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        state = os.fstat(fd)
        if stat.S_ISREG(state.st_mode):
            if state.st_uid != os.geteuid():
                raise click.UsageError(f"{target} belongs to another user: choose a new file.")
            os.fchmod(fd, 0o600)
            os.ftruncate(fd, 0)
    except OSError as error:
        raise click.UsageError(f"{target} can't be written: {error.strerror}") from error
    return fd


def _end_on_signals(packets: Tap) -> None:
    """The first one ends the capture properly, a second one at once."""

    def stop(number: int, _frame: object) -> None:
        packets.stop()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _warn_of_foreign(packets: Tap, ids: tuple[int, ...]) -> None:
    if packets.foreign and ids:
        raise click.UsageError("These connections belong to another user.")
    if packets.foreign:
        click.echo(f"loopfuse: {packets.foreign} connections of other users are left out", err=True)


def _capture(
    packets: Tap, count: int | None, output: int | None, snap: int, text: str | None
) -> None:
    from loopfuse._tap import pcapng

    began = time.time_ns()
    left = sys.maxsize if count is None else count
    try:
        if output is not None:
            _write(output, pcapng.begin(snap, text))
        while left and (batch := packets.take()) is not None:
            batch = batch[:left]
            left -= len(batch)
            if output is not None:
                _write(output, b"".join(map(pcapng.packet, batch)))
            else:
                _write(sys.stdout.fileno(), "".join(map(_line, batch)).encode())
        said = packets.statistics()
        # Of the last batch, no more than --count was wanted.
        captured = said.packets if count is None else count - left
        words = (
            f"{captured} packets captured, {said.lost} lost since the capture was read too "
            f"slowly, {said.missing} bytes missing"
        )
        if said.damaged:
            words += f", {said.damaged} damaged"
        if output is not None:
            totals = pcapng.Totals(began, time.time_ns(), said.received, said.lost, words)
            _write(output, pcapng.end(totals))
        click.echo(words, err=True)
    except BrokenPipeError:
        pass  # who read it has seen enough
    except OSError as error:
        raise click.UsageError(f"the capture can't be written: {error.strerror}") from error


def _write(fd: int, data: bytes) -> None:
    """All of it, at once: a reader of the pipe sees it live."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _line(packet: Packet) -> str:
    seconds, ns = divmod(packet.time, 1_000_000_000)
    when = time.strftime("%H:%M:%S", time.localtime(seconds))
    return f"{when}.{ns:09d} #{packet.connection.id} {packet.text()}\n"
