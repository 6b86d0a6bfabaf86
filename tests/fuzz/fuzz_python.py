"""Coverage-guided fuzzing of what reads others' bytes in Python, with atheris (libFuzzer).

  messages   packets to a broker: a real one takes them in, from a client that reads its answers
  segment    a header that its two ends wrote, and the rows that are made of it
  capture    a capture ring that tapped programs wrote

A target takes the fuzzer's bytes and must not raise. Run by scripts/fuzz. With `replay` before the
target's name it takes what lies in a folder once more, for which atheris is not needed.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent))  # for the tests' own modules

_REPLAYS = sys.argv[1:2] == ["replay"]
if not _REPLAYS:
    import atheris

# What is imported here tells the fuzzer which of its lines have run.
with nullcontext() if _REPLAYS else atheris.instrument_imports(include=["loopfuse"]):
    from broker_fixtures import claim_of
    from loopfuse import _capture_ring as capture
    from loopfuse import _segments as segments
    from loopfuse import _wire as wire
    from loopfuse._broker import Broker, Options
    from loopfuse._broker_state.client import Client
    from loopfuse._broker_state.rows import _flow_row, judge
    from loopfuse._errors import SegmentError, WireError
    from loopfuse._reasons import code_of

_ENCODER = msgspec.json.Encoder()
_DRAIN = 65536


class Messages:
    """A broker that nobody else speaks to, and a connection whose ends may be claimed."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._ends = [socket.create_connection(listener.getsockname()), listener.accept()[0]]
        # A corner of the machine where nothing is to be found by chance.
        os.environ["LOOPFUSE_BROKER"] = str(Path(tempfile.gettempdir()) / "loopfuse-fuzz.sock")
        self._broker = Broker(Options(log_level="error", log_target=os.devnull))

    def __call__(self, data: bytes) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here.setblocking(False)
        client = Client(there, lambda _client: None)
        self._broker._take(client, wire.pack_hello(wire.Hello(0, 1)))
        try:
            # A byte of length before each packet.
            while data and client.failure is None:
                packet, data = data[1 : data[0] + 1], data[data[0] + 1 :]
                if packet:
                    self._take(client, self._whole(packet))
                    drain(here)
            self._broker._sweep.run()
            self._broker._pairing.prospects.run()
            self._broker._taps.run()
        finally:
            self._broker._pairing.on_client_gone(client)
            self._broker._taps.on_client_gone(client)
            client.close()
            here.close()

    def _whole(self, packet: bytes) -> bytes:
        """A packet whose first byte is a type of message stands for a sound one of that type, but
        for what the other bytes say: in pairs, where it is damaged and how."""
        kind = packet[0] & 0xF
        size = wire._SIZES.get(wire.Type(kind)) if kind in list(wire.Type) else None
        if size is None or packet[0] == ord("{"):
            return packet
        whole = bytearray(wire._HEAD.pack(wire.MAGIC, wire.VERSION, kind).ljust(size, b"\0"))
        if kind in (wire.Type.CLAIM, wire.Type.DECLINE):
            side = wire.Side(packet[0] >> 4 & 1)
            claim = claim_of(self._ends[side], side, packet[0] >> 5)
            whole[:] = wire.pack_claim(claim._replace(declined=kind == wire.Type.DECLINE))
        for place, value in zip(packet[1::2], packet[2::2], strict=False):
            whole[place % size] ^= value
        return bytes(whole)

    def _take(self, client: Client, packet: bytes) -> None:
        try:
            self._broker._take(client, packet)
        except WireError:
            client.fail("broke the protocol")


def drain(sock: socket.socket) -> None:
    """Takes away all there is, and the descriptors that came along."""
    while True:
        try:
            _, fds, _, _ = socket.recv_fds(sock, _DRAIN, 4)
        except BlockingIOError:
            return
        for fd in fds:
            os.close(fd)


class Segment:
    """What the broker makes of a segment."""

    def __init__(self) -> None:
        self._fd = segments.make_segment(1, segments.RING_MIN)
        self._at = segments.header_of(self._fd)
        self._identity = os.pread(self._fd, 32, self._at)

    def __call__(self, data: bytes) -> None:
        header = data[: segments.HEADER].ljust(segments.HEADER, b"\0")
        if header[0] % 8:
            header = self._identity + header[32:]
        os.pwrite(self._fd, header, self._at)
        try:
            read = segments.read_segment(self._fd)
        except SegmentError:
            return
        _, reason = judge(read, 0)
        code_of(reason)
        for direction in (read.to_server, read.to_client):
            _ENCODER.encode(_flow_row(direction, read.ring_size))


class Capture:
    """What a tap makes of a capture ring: producers do this and that between two looks at it."""

    def __call__(self, data: bytes) -> None:
        fd = capture.make_capture_ring(capture.CELLS_MIN, 65536)
        ring = capture.CaptureRing(os.dup(fd), capture.CELLS_MIN)
        begun = 0
        try:
            for step, (deed, number, more) in enumerate(_DEED.iter_unpack(_even(data))):
                if deed % 4 == 0:  # so many cells are reserved, or all at once
                    begun += number - 0x80 if deed & 8 else number << 48
                    os.pwrite(fd, _U64.pack(begun & _MASK), capture.RESERVED)
                elif deed % 4 == 1:  # a record is ready
                    cell = (begun - (number >> 8) & _MASK) if deed & 8 else number
                    word = (cell + 1 << 8 | number & 0xFF) & _MASK
                    place = capture.HEADER + 8 * (cell % capture.CELLS_MIN)
                    os.pwrite(fd, _U64.pack(word), place)
                    at = capture.HEADER + capture.CELLS_MIN * 8
                    at += cell % capture.CELLS_MIN * capture.CELL
                    kind, length = more & 3, more >> 2
                    record = capture.RECORD.pack(
                        1, 0, 0, 0, length, max(length - (deed >> 4), 0), 1, 0, kind
                    )
                    os.pwrite(fd, record, at)
                elif deed % 4 == 2:  # a word is anything
                    os.pwrite(
                        fd, _U64.pack(more << (deed >> 4) * 4 & _MASK), number * 8 % (1 << 16)
                    )
                for found in ring.take(ring.reserved, 64, step * 0.7):
                    assert len(found.payload) <= found.length <= capture.MOST
        finally:
            ring.close()
            os.close(fd)


_DEED = struct.Struct("=BHH")
_U64 = struct.Struct("=Q")
_MASK = (1 << 64) - 1


def _even(data: bytes) -> bytes:
    return data[: len(data) // _DEED.size * _DEED.size]


TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "messages": Messages,
    "segment": Segment,
    "capture": Capture,
}


def replay(name: str, folder: Path) -> None:
    target = TARGETS[name]()
    for file in sorted(folder.iterdir()):
        target(file.read_bytes())
        print(file.name)


def main() -> None:
    if _REPLAYS:
        replay(sys.argv[2], Path(sys.argv[3]))
        return
    target = TARGETS[sys.argv.pop(1)]()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
