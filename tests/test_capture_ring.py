"""The capture ring's Python twin against capture.h, and against what hostile producers write."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c_layout import values_of
from loopfuse import _capture_ring as capture
from loopfuse._capture_ring import CELL, RECORD, CaptureRing, Kind
from loopfuse._errors import TapError

CELLS = capture.CELLS_MIN


class Producer:
    """Writes to a ring what tap.c writes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def word(self, at: int) -> int:
        return int(struct.unpack("=Q", os.pread(self.fd, 8, at))[0])

    def set_word(self, at: int, value: int) -> None:
        os.pwrite(self.fd, struct.pack("=Q", value & (1 << 64) - 1), at)

    def reserve(self, count: int) -> int:
        cell = self.word(capture.RESERVED)
        self.set_word(capture.RESERVED, cell + count)
        return cell

    def write(self, payload: bytes, *, length: int | None = None, commit: bool = True) -> int:
        record = (4711, 1, 0, 0, len(payload) if length is None else length, len(payload), 1, 0, 1)
        data = RECORD.pack(*record) + payload
        count = -(-len(data) // CELL)
        cell = self.reserve(count)
        start = capture.HEADER + 8 * CELLS
        for number in range(count):
            place = start + ((cell + number) % CELLS) * CELL
            os.pwrite(self.fd, data[number * CELL : (number + 1) * CELL], place)
        if commit:
            self.commit(cell, count)
        return cell

    def commit(self, cell: int, count: int) -> None:
        self.set_word(capture.HEADER + 8 * (cell % CELLS), (cell + 1) << 8 | count)


@pytest.fixture
def pair() -> Iterator[tuple[Producer, CaptureRing]]:
    fd = capture.make_capture_ring(CELLS, 262144)
    ring = CaptureRing(os.dup(fd), CELLS)
    yield Producer(fd), ring
    ring.close()
    os.close(fd)


def payloads(ring: CaptureRing, now: float = 0.0) -> list[bytes]:
    return [record.payload for record in ring.take(ring.reserved, 1000, now)]


def test_every_field_lies_where_c_has_it(tmp_path: Path) -> None:
    fields = {
        "pair_id": 1,
        "time": 2,
        "position": 3,
        "tcp_before": 4,
        "length": 5,
        "captured": 6,
        "pid": 7,
        "direction": 8,
        "kind": 9,
    }
    packed = RECORD.pack(*fields.values())
    kind = "struct lf_capture_record"
    questions = [f"offsetof({kind}, {name})" for name in fields]
    questions += [f"sizeof((({kind} *)0)->{name})" for name in fields]
    words = {
        "closed": capture.CLOSED,
        "reserved": capture.RESERVED,
        "lost": capture.LOST,
        "read": capture.READ,
    }
    questions += [f"offsetof(struct lf_capture, {name})" for name in words]
    questions += [f"sizeof({kind})"]
    c = values_of(["capture.h", "stddef.h"], questions, tmp_path)
    assert c[f"sizeof({kind})"] == RECORD.size
    for name, value in fields.items():
        at, size = c[f"offsetof({kind}, {name})"], c[f"sizeof((({kind} *)0)->{name})"]
        assert int.from_bytes(packed[at : at + size], "little") == value, name
    for name, place in words.items():
        assert c[f"offsetof(struct lf_capture, {name})"] == place


def test_the_numbers_are_those_of_c(tmp_path: Path) -> None:
    twins = {
        "LF_CAPTURE_MAGIC": capture.MAGIC,
        "LF_CAPTURE_VERSION": capture.VERSION,
        "LF_CAPTURE_HEADER": capture.HEADER,
        "LF_CAPTURE_CELL": capture.CELL,
        "LF_CAPTURE_CELLS_MIN": capture.CELLS_MIN,
        "LF_CAPTURE_CELLS_MAX": capture.CELLS_MAX,
        "LF_CAPTURE_MOST": capture.MOST,
        "lf_capture_size(4096)": capture.size_of(4096),
        "LF_CAPTURE_READY(7ull, 3ull)": 8 << 8 | 3,
    }
    twins |= {f"LF_CAPTURE_{kind.name}": kind for kind in Kind}
    assert values_of(["capture.h"], list(twins), tmp_path) == twins


def test_records_come_out_as_they_went_in(pair: tuple[Producer, CaptureRing]) -> None:
    producer, ring = pair
    sent = []
    for number in range(400):  # three times round, over the end in the middle of a record
        sent.append(bytes([number & 255]) * (number * 7 % 3000 + 1))
        producer.write(sent[-1])
        if number % 10 == 9:
            assert payloads(ring) == sent
            assert producer.word(capture.READ) == producer.word(capture.RESERVED)
            sent.clear()
    assert ring.damaged == 0


def test_a_record_shows_only_when_it_is_complete(pair: tuple[Producer, CaptureRing]) -> None:
    producer, ring = pair
    cell = producer.write(b"first", commit=False)
    producer.write(b"second")
    assert payloads(ring) == []
    producer.commit(cell, 1)
    assert payloads(ring) == [b"first", b"second"]


def test_a_hole_is_passed_over_after_a_while(pair: tuple[Producer, CaptureRing]) -> None:
    producer, ring = pair
    producer.write(b"killed" * 100, commit=False)
    producer.write(b"lives")
    assert payloads(ring, 10.0) == []
    assert payloads(ring, 10.0 + capture.HOLE_SECONDS + 0.1) == [b"lives"]
    assert ring.damaged == 1
    producer.write(b"on")
    assert payloads(ring, 12.0) == [b"on"]


def test_a_reservation_beyond_the_ring_is_not_believed(
    pair: tuple[Producer, CaptureRing],
) -> None:
    producer, ring = pair
    producer.set_word(capture.RESERVED, 1 << 60)
    assert payloads(ring) == []
    assert ring.damaged == 1
    producer.write(b"again")
    assert payloads(ring) == [b"again"]


def test_a_record_that_claims_more_than_its_cells_is_left_out(
    pair: tuple[Producer, CaptureRing],
) -> None:
    producer, ring = pair
    cell = producer.write(b"x" * 600)
    producer.commit(cell, 1)
    producer.write(b"behind")
    assert b"x" * 600 not in payloads(ring, 0.0)
    assert payloads(ring, 5.0) == [b"behind"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=4096), st.integers(0, capture.size_of(CELLS)))
def test_no_garbage_raises_or_hangs(
    pair: tuple[Producer, CaptureRing], garbage: bytes, at: int
) -> None:
    producer, ring = pair
    os.pwrite(producer.fd, garbage[: max(0, capture.size_of(CELLS) - at)], at)
    for now in (0.0, 2.0, 4.0):
        for record in ring.take(ring.reserved, 100, now):
            assert len(record.payload) <= record.length <= capture.MOST


def test_a_dropped_ring_tells_and_costs_nothing() -> None:
    fd = capture.make_capture_ring(CELLS, 1)
    try:
        producer = Producer(fd)
        producer.write(b"x" * 5000)
        capture.drop_capture_ring(fd)
        assert producer.word(capture.CLOSED) == 1
        assert os.fstat(fd).st_blocks * 512 <= capture.HEADER
    finally:
        os.close(fd)


def test_a_ring_of_another_size_is_refused() -> None:
    with pytest.raises(TapError):
        CaptureRing(capture.make_capture_ring(CELLS, 1), 2 * CELLS)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 16 << 20, 17 << 20, 1 << 40])
def test_a_buffer_takes_no_more_than_it_may(size: int) -> None:
    cells = capture.cells_for(size)
    assert cells & (cells - 1) == 0
    assert cells == CELLS or cells * CELL <= size
