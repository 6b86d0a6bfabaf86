"""A peer that speaks the broker's protocol as a library does, and then does harm."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from broker_fixtures import PATIENCE, FakeLibrary, Message
from loopfuse import _segments as segments
from loopfuse import _wire as wire

_LIBC = ctypes.CDLL(None, use_errno=True)
_SEAL_FUTURE_WRITE = 0x10
_PUNCH_HOLE = 0x3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE


class Field(NamedTuple):
    """A word of the header, at `at` in its direction."""

    at: int
    wide: bool


HEAD, MARK, FIN_HINT, HELD = Field(0, True), Field(8, False), Field(12, False), Field(16, True)
END_POS, REASON, CPU, ORIGIN = Field(24, True), Field(32, False), Field(36, False), Field(40, True)
TAIL = Field(segments.TAIL, True)
READY, CLOSED, WISH, WHY, _, LIMIT, REFUSES = (
    Field(segments.CONSUMER + 4 * place, False) for place in range(7)
)
COPIED, GIVEN, TCP_TOTAL, HELD_AT = (
    Field(segments.ARRIVALS + at, True) for at in (0x40, 0x48, 0x50, 0x58)
)
_ARMED = [
    Field(line + at, wide)
    for line in (segments.READER, segments.WRITER)
    for at, wide in ((0, False), (4, False), (8, True), (16, True))
]
FIELDS = (
    *(HEAD, MARK, FIN_HINT, HELD, HELD_AT, TCP_TOTAL, END_POS, REASON, CPU, ORIGIN, TAIL),
    *(READY, CLOSED, WISH, WHY, LIMIT, REFUSES, COPIED, GIVEN, *_ARMED),
)
_STATES = (MARK, FIN_HINT, READY, CLOSED, WISH)


class _Place(ctypes.Structure):
    _fields_ = (
        ("at", ctypes.c_void_p),
        ("values", ctypes.c_uint64 * 2),
        ("wide", ctypes.c_uint32),
    )


class NotFusedError(Exception):
    """The victim was quicker to claim its end, or to let go of it, than we to claim ours."""


class Hostile:
    """The client's end of a connection to `port`, fused for all the other end can tell."""

    def __init__(self, broker: Path, port: int, rng: random.Random) -> None:
        self._rng = rng
        self.library = FakeLibrary(broker)
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.library.claim(self.sock, wire.Side.CLIENT)
        answer = self._be_paired()
        if answer is None or not isinstance(answer.body, wire.Fuse):
            self.sock.close()
            self.library.close()
            raise NotFusedError
        self.pair_id = answer.body.pair_id
        self.ring_size = answer.body.ring_size
        self.segment = os.dup(answer.fds[0])
        self.bell = socket.socket(fileno=os.dup(answer.fds[1]))
        self.bell.setblocking(False)
        for fd in self.library._fds:
            os.close(fd)
        self.library._fds.clear()
        self.memory = mmap.mmap(self.segment, 0)
        self._header = segments.header_of(self.segment)

    def _be_paired(self) -> Message | None:
        """A victim claims its end when it receives, and again if the kernel's counts were just
        changing. None: it claimed before we did, and was told that there is nobody."""
        self.library.socket.settimeout(1)
        for self._sent_by_tcp in range(1, 6):
            with contextlib.suppress(OSError):
                self.sock.send(b"t")
            with contextlib.suppress(TimeoutError):
                return self.library.receive()
        return None

    # -- the words of the segment ---------------------------------------------------------

    def place(self, direction: int, field: Field) -> int:
        return self._header + segments.DIRECTION + direction * segments.DIRECTION_SIZE + field.at

    def get(self, direction: int, field: Field) -> int:
        word: int = struct.unpack_from(
            "=Q" if field.wide else "=I", self.memory, self.place(direction, field)
        )[0]
        return word

    def put(self, direction: int, field: Field, value: int) -> None:
        kind, mask = ("=Q", (1 << 64) - 1) if field.wide else ("=I", (1 << 32) - 1)
        struct.pack_into(kind, self.memory, self.place(direction, field), value & mask)

    # -- what an honest peer would do -----------------------------------------------------

    def watch_the_ring(self) -> None:
        """From now on the victim may send by ring."""
        self.put(1, READY, 1)

    def be_watched(self) -> None:
        """Waits until the victim watches the ring, which it may not do before it has received
        once more."""
        for tries in range(200):
            if self.get(0, READY):
                return
            time.sleep(0.05)
            if tries > 20:
                self.sock.send(b"t")
                self._sent_by_tcp += 1
        raise AssertionError("the victim never watches the ring")

    def fuse(self) -> None:
        self.put(0, TCP_TOTAL, self._sent_by_tcp)
        self.put(0, MARK, segments.Mark.FUSED)

    def send(self, n: int) -> None:
        """So many bytes more, of whatever lies in the ring."""
        self.put(0, HEAD, self.get(0, HEAD) + n)
        self.ring()

    def take_all(self) -> None:
        self.put(1, TAIL, self.get(1, HEAD))
        self.ring()

    def ring(self, n: int = 1) -> None:
        with contextlib.suppress(OSError):
            self.bell.send(b"!" * n)

    # -- harm -----------------------------------------------------------------------------

    def _value(self, direction: int, field: Field) -> int:
        rng, now = self._rng, self.get(direction, field)
        size = self.ring_size
        if field in _STATES and rng.random() < 0.8:
            return rng.randrange(5)
        if rng.random() < 0.6:
            by = rng.choice((0, 1, -1, size, size + 1, size - 1, -size, rng.randrange(size)))
            other = rng.choice((field, HEAD, TAIL, END_POS))
            return self.get(direction, other) + by
        return rng.choice((0, 1, -1, 1 << 31, 1 << 63, now ^ 1, rng.getrandbits(64)))

    def write_a_word(self) -> None:
        direction, field = self._rng.randrange(2), self._rng.choice(FIELDS)
        self.put(direction, field, self._value(direction, field))

    def write_the_brokers_word(self) -> None:
        word = self._rng.choice((0, 0, 1 << 16, 0xFF << 16, self._rng.getrandbits(32)))
        struct.pack_into("=I", self.memory, self._header + segments.BROKER_WISH, word)

    def scribble(self) -> None:
        """Noise over a stretch, of the header or anywhere."""
        n = self._rng.choice((1, 8, 64, 600))
        reach = segments.HEADER if self._rng.random() < 0.7 else len(self.memory) - self._header
        at = self._header + self._rng.randrange(reach - n)
        self.memory[at : at + n] = self._rng.randbytes(n)

    def flood_the_bell(self) -> None:
        with contextlib.suppress(OSError):
            for _ in range(self._rng.choice((1, 100, 5000))):
                self.bell.send(b"!" * self._rng.choice((1, 4096)))

    def empty_the_bell(self) -> None:
        with contextlib.suppress(OSError):
            self.bell.recv(65536)

    def punch_a_hole(self) -> None:
        """Takes memory away from under the mapping; sealed, the file keeps its size."""
        at, n = (self._header, 4096) if self._rng.random() < 0.5 else (0, len(self.memory))
        offset, length = ctypes.c_long(at & ~4095), ctypes.c_long(n)
        _LIBC.fallocate(self.segment, _PUNCH_HOLE, offset, length)

    def try_to_truncate(self) -> None:
        """Must fail, or the victim gets SIGBUS."""
        for size in (0, len(self.memory) - 4096, 2 * len(self.memory)):
            assert fails_with(errno.EPERM, os.ftruncate, self.segment, size)
        for seal in (fcntl.F_SEAL_WRITE, _SEAL_FUTURE_WRITE):
            assert fails_with(errno.EPERM, fcntl.fcntl, self.segment, fcntl.F_ADD_SEALS, seal)

    def send_by_tcp(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.setblocking(False)
            self.sock.send(b"t" * self._rng.choice((1, 1000, 100000)))

    def lie_to_the_broker(self) -> None:
        with contextlib.suppress(OSError):
            self.library.send(wire.pack_closed(wire.Closed(self.pair_id, 0)))

    def behave(self) -> None:
        """So that the state machine gets somewhere between the blows."""
        self.watch_the_ring()
        if self.get(0, MARK) == segments.Mark.PLAIN:
            self.fuse()
        self.send(self._rng.randrange(1, 5000))
        self.take_all()

    def do_harm(self, steps: int) -> None:
        deeds = (
            *([self.write_a_word] * 12),
            *([self.behave] * 4),
            *(self.write_the_brokers_word, self.scribble, self.flood_the_bell),
            *(self.empty_the_bell, self.punch_a_hole, self.try_to_truncate),
            *(self.send_by_tcp, self.lie_to_the_broker, lambda: self.ring()),
        )
        for _ in range(steps):
            self._rng.choice(deeds)()
            if self._rng.random() < 0.3:
                time.sleep(self._rng.random() * 0.001)

    def flip_beside(self, flipper: ctypes.CDLL, seconds: float) -> threading.Thread:
        """A thread that changes words back and forth while the victim looks at them."""
        count = self._rng.randrange(1, 5)
        places = (_Place * count)()
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        for entry in places:
            direction = self._rng.randrange(2)
            field = self._rng.choice((HEAD, TAIL, MARK, END_POS, WISH, CLOSED, ORIGIN, TCP_TOTAL))
            entry.at = base + self.place(direction, field)
            entry.wide = field.wide
            entry.values[0] = self.get(direction, field)
            entry.values[1] = self._value(direction, field) & ((1 << 64) - 1)
        thread = threading.Thread(
            target=flipper.flip, args=(places, count, ctypes.c_int64(int(seconds * 1e9)))
        )
        thread.start()
        return thread

    # -- the end --------------------------------------------------------------------------

    def go(self) -> None:
        """Lets go of everything, in any order, as a process does that dies or closes."""
        if self._rng.random() < 0.3:
            linger = struct.pack("=ii", 1, 0)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        parts = [self.sock.close, self.bell.close, self.library.close]
        self._rng.shuffle(parts)
        for part in parts:
            part()
            if self._rng.random() < 0.2:
                time.sleep(self._rng.random() * 0.02)
        os.close(self.segment)
        self.memory.close()


def fails_with(number: int, call: Callable[..., object], *arguments: object) -> bool:
    try:
        call(*arguments)
    except OSError as error:
        return error.errno == number
    return False
