"""The segment's Python twin against segment.h."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from c_layout import values_of
from loopfuse import _segments as segments
from loopfuse._broker_state.budget import Budget
from loopfuse._broker_state.rows import judge
from loopfuse._errors import SegmentError
from loopfuse._reasons import Reason

_PRODUCER = ("head", "mark", "fin_hint", "held", "end_pos", "reason", "messages")
_CONSUMER = ("ready", "closed", "wish", "reason")
_WAITS = ("spins_paid", "spins_vain", "sleeps", "wake_ns", *(f"wakes[{i}]" for i in range(8)))
_ARMED = ("armed", "below", "rings")
_ARRIVALS = ("copied", "tcp_total")
_WIDE = ("head", "held", "end_pos", "tail", "messages", "rings", *_ARRIVALS, *_WAITS[:4])


@pytest.fixture
def segment() -> Iterator[int]:
    fd = segments.make_segment(4711, 8192)
    yield fd
    os.close(fd)


def test_every_field_is_read_where_c_has_it(tmp_path: Path, segment: int) -> None:
    """Writes each field where C says it is, a value of its own each."""
    places = {f"dir[{i}].p.{name}": name for i in (0, 1) for name in _PRODUCER}
    places |= {f"dir[{i}].t.tail": "tail" for i in (0, 1)}
    places |= {f"dir[{i}].c.{name}": name for i in (0, 1) for name in _CONSUMER}
    for i in (0, 1):
        for who, line in (("reader", "t"), ("writer", "p")):
            places |= {f"dir[{i}].{line}.waits.{name}": name for name in _WAITS}
            places |= {f"dir[{i}].{who}.{name}": name for name in _ARMED}
        places |= {f"dir[{i}].arrivals.{name}": name for name in _ARRIVALS}
    places["broker_wish"] = "broker_wish"
    questions = [f"offsetof(struct lf_segment, {place})" for place in places]
    offsets = values_of(["segment.h"], questions, tmp_path)
    written = {}
    for value, (place, name) in enumerate(places.items(), start=1):
        form = "=Q" if name in _WIDE else "=I"
        at = offsets[f"offsetof(struct lf_segment, {place})"]
        os.pwrite(segment, struct.pack(form, value), segments.header_of(segment) + at)
        written[place] = value
    read = segments.read_segment(segment)
    assert read.broker_wish == written["broker_wish"]
    for index, direction in enumerate((read.to_server, read.to_client)):
        for name in _PRODUCER:
            assert getattr(direction, name) == written[f"dir[{index}].p.{name}"]
        assert direction.tail == written[f"dir[{index}].t.tail"]
        assert direction.wish == written[f"dir[{index}].c.wish"]
        assert direction.consumer_reason == written[f"dir[{index}].c.reason"]
        assert direction.ready and direction.closed
        for name in _ARRIVALS:
            assert getattr(direction, name) == written[f"dir[{index}].arrivals.{name}"]
        for waits, who, line in (
            (direction.reader, "reader", "t"),
            (direction.writer, "writer", "p"),
        ):
            expected = [written[f"dir[{index}].{line}.waits.{name}"] for name in _WAITS]
            assert list(waits[3:-1]) + list(waits.wakes) == expected
            assert waits.armed
            assert waits.below == written[f"dir[{index}].{who}.below"]
            assert waits.rings == written[f"dir[{index}].{who}.rings"]


def test_the_identity_is_what_c_expects(tmp_path: Path, segment: int) -> None:
    expected = {
        "magic": segments.MAGIC,
        "version": segments.VERSION,
        "header_size": segments.HEADER,
        "pair_id": 4711,
        "ring_size": 8192,
        "flags": 0,
    }
    questions = [f"offsetof(struct lf_segment, {name})" for name in expected]
    questions += [f"sizeof(((struct lf_segment *)0)->{name})" for name in expected]
    c = values_of(["segment.h"], questions, tmp_path)
    header = os.pread(segment, segments.HEADER, segments.header_of(segment))
    for name, value in expected.items():
        at = c[f"offsetof(struct lf_segment, {name})"]
        size = c[f"sizeof(((struct lf_segment *)0)->{name})"]
        assert int.from_bytes(header[at : at + size], "little") == value, name


def test_the_numbers_are_those_of_c(tmp_path: Path) -> None:
    twins = {
        "LF_SEGMENT_MAGIC": segments.MAGIC,
        "LF_SEGMENT_VERSION": segments.VERSION,
        "LF_SEGMENT_HEADER": segments.HEADER,
        "LF_SEGMENT_EXTRA": segments.EXTRA,
        "LF_SEGMENT_SHORT": segments.SHORT,
        "LF_RING_MIN": segments.RING_MIN,
        "LF_RING_MAX": segments.RING_MAX,
        "LF_MARK_PLAIN": segments.Mark.PLAIN,
        "LF_MARK_FUSED": segments.Mark.FUSED,
        "LF_MARK_ENDED": segments.Mark.ENDED,
        "LF_WAKE_BUCKETS": len(segments.WAKE_BOUNDS) + 1,
    }
    for index, bound in enumerate(segments.WAKE_BOUNDS):
        twins[f"((const int[])LF_WAKE_BOUNDS_NS)[{index}]"] = round(bound * 1e9)
    assert values_of(["segment.h"], list(twins), tmp_path) == twins


@pytest.mark.parametrize("ring_size", [segments.RING_MIN, 128 << 10, segments.RING_MAX])
def test_header_and_rings_lie_where_c_has_them(tmp_path: Path, ring_size: int) -> None:
    fd = segments.make_segment(1, ring_size)
    header, size = segments.header_of(fd), os.fstat(fd).st_size
    os.close(fd)
    at = f"(char *)lf_segment_at((void *)0x1000, {ring_size})"
    rings = [f"(char *)lf_segment_ring((void *)({at}), {ring_size}, {i}) - {at}" for i in (0, 1)]
    page = f"lf_segment_page((void *)({at})) - (uint8_t *)0x1000"
    back = f"(char *)lf_segment_in_page(lf_segment_page((void *)({at}))) - {at}"
    length = f"lf_segment_size({ring_size})"
    c = values_of(["segment.h"], [f"{at} - (char *)0x1000", *rings, page, back, length], tmp_path)
    assert list(c.values()) == [
        header,
        segments.HEADER,
        2**64 - ring_size,
        ring_size,
        0,
        size,
    ]
    assert header + segments.HEADER + ring_size <= size and header - ring_size >= 0


@pytest.mark.parametrize("direction", [0, 1])
def test_what_lies_in_the_headers_page_is_found_by_its_own_mapping(
    tmp_path: Path, direction: int
) -> None:
    ring_size, short, whole, page = 8192, segments.SHORT, 0x100000, 0x500000
    header = f"lf_segment_in_page((void *){page:#x})"
    ring = f"lf_ring_of({header}, (void *){whole:#x}, {ring_size}, {direction})"
    begin = 0 if direction == 0 else ring_size - short
    pieces = [
        (begin, 0),
        (begin, 1),
        (begin, short),
        (begin + 1, short - 1),
        (begin + short - 1, 1),
    ]
    # Partly, or not at all.
    others = [(begin, short + 1), (begin + 1, short)] if direction == 0 else [(begin - 1, 2)]
    others += [(begin - 1, short + 1)] if direction == 1 else [(short, 1), (ring_size - 1, 1)]
    others += [(0, ring_size), (2048, 8)]
    calls = [
        f"(uintptr_t)lf_ring_at(&(struct lf_ring[]){{{ring}}}[0], {place}, {n})"
        for place, n in pieces + others
    ]
    found = list(values_of(["ring.h"], calls, tmp_path).values())
    in_file = segments.SHORT + (ring_size + segments.HEADER if direction == 0 else 0)
    in_page = [page + in_file + place - ring_size for place, _ in pieces]
    in_whole = [whole + in_file + place for place, _ in others]
    assert found == in_page + in_whole
    assert all(
        page <= at and at + n <= page + 4096 for at, (_, n) in zip(in_page, pieces, strict=True)
    )


def _pages(direction: int, ring_size: int, place: int, n: int) -> set[int]:
    start = segments.SHORT + (ring_size + segments.HEADER if direction == 0 else 0)
    return {(start + (place + i) % ring_size) // 4096 for i in range(n)}


@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("ring_size", [segments.RING_MIN, 16384])
def test_a_message_alone_touches_as_few_pages_as_can_be(
    tmp_path: Path, direction: int, ring_size: int
) -> None:
    sizes = [1, segments.SHORT, segments.SHORT + 1, 4096, 5120, 5121, 16384]
    sizes = [n for n in sizes if n <= ring_size]
    homes = [f"lf_segment_home({ring_size}, {direction}, {n})" for n in sizes]
    c = values_of(["segment.h"], homes, tmp_path)
    header_page = ring_size // 4096
    for n, home in zip(sizes, c.values(), strict=True):
        pages = _pages(direction, ring_size, home, n) | {header_page}
        # Only a message that fills the ring may go around its end.
        assert len(pages) <= 1 + -(-max(n - segments.SHORT, 0) // 4096) + (n == ring_size)


@pytest.mark.parametrize("direction", [0, 1])
def test_bytes_left_in_a_page_are_counted_as_pages_lie(tmp_path: Path, direction: int) -> None:
    places = [0, 1, 1023, 1024, 3071, 3072, 5119, 5120, 7167, 7168, 8191]
    asked = [f"lf_segment_left_in_page(8192, {direction}, {place})" for place in places]
    c = values_of(["segment.h"], asked, tmp_path)
    for place, left in zip(places, c.values(), strict=True):
        assert len(_pages(direction, 8192, place, left)) == 1
        end = place + left == 8192
        assert end or len(_pages(direction, 8192, place, left + 1)) == 2


def test_a_segment_can_neither_shrink_nor_grow(segment: int) -> None:
    size = segments.EXTRA + 2 * 8192
    assert os.fstat(segment).st_size == size
    for other in (0, size - 1, size + 1):
        with pytest.raises(PermissionError):
            os.ftruncate(segment, other)
    with pytest.raises(PermissionError):
        fcntl.fcntl(segment, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_an_idle_segment_costs_one_page() -> None:
    fd = segments.make_segment(1, segments.RING_MAX)
    try:
        assert os.fstat(fd).st_blocks * 512 == os.sysconf("SC_PAGE_SIZE")
    finally:
        os.close(fd)


def test_the_brokers_wish_is_read_back(segment: int) -> None:
    segments.write_broker_word(segment, Reason.REQUEST, 0b101)
    read = segments.read_segment(segment)
    assert (read.broker_wish, read.taps) == (Reason.REQUEST, 0b101)


@pytest.mark.parametrize("size", [0, 4095, 4097, 12288, segments.RING_MAX * 2, -4096])
def test_impossible_ring_sizes_are_refused(size: int) -> None:
    with pytest.raises(SegmentError, match=str(size)):
        segments.check_ring_size(size)


def test_what_is_no_segment_is_refused() -> None:
    for size in (0, 100, 8192):
        fd = os.memfd_create("test")
        os.ftruncate(fd, size)
        with pytest.raises(SegmentError):
            segments.read_segment(fd)
        os.close(fd)


# -- what `ps` makes of it -----------------------------------------------------------------

_QUIET = segments.Direction(0, 0, 0, 0, 0, 0, 0, False, False, 0, 0)
_PLAIN, _FUSED, _ENDED = segments.Mark


def _judge(
    to_server: segments.Direction,
    to_client: segments.Direction,
    *,
    wish: int = 0,
    declined: int = 0,
) -> tuple[str, int]:
    return judge(segments.Segment(1, 4096, wish, to_server, to_client), declined)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, ("plain", Reason.NONE)),
        ({"ready": True}, {}, ("plain", Reason.NONE)),
        ({"ready": True}, {"ready": True}, ("fused", Reason.NONE)),
        ({"mark": _FUSED}, {}, ("fused", Reason.NONE)),
        ({"mark": _FUSED}, {"mark": _FUSED}, ("fused", Reason.NONE)),
        ({"reason": 2}, {}, ("plain", 2)),
        ({"consumer_reason": 2}, {"ready": True}, ("plain", 2)),
        ({"mark": _FUSED}, {"consumer_reason": 2}, ("fused", Reason.NONE)),
        ({"mark": _ENDED, "reason": 33}, {"mark": _FUSED}, ("defused", 33)),
        ({"mark": _FUSED}, {"mark": _ENDED, "reason": 34}, ("defused", 34)),
        ({"mark": _ENDED, "copied": 7}, {"mark": _FUSED}, ("fused", Reason.NONE)),
        ({"mark": _ENDED, "copied": 7}, {"mark": _ENDED, "copied": 8}, ("fused", Reason.NONE)),
        ({"mark": _ENDED, "copied": 7}, {"mark": _ENDED, "reason": 34}, ("defused", 34)),
        ({"mark": 3}, {"mark": _FUSED}, ("defused", Reason.CORRUPT)),
    ],
)
def test_the_marks_decide_the_state(
    one: dict[str, int], other: dict[str, int], expected: tuple[str, int]
) -> None:
    a, b = _QUIET._replace(**one), _QUIET._replace(**other)  # type: ignore[arg-type]
    assert _judge(a, b) == expected
    assert _judge(b, a) == expected


def test_an_end_that_declined_after_the_pairing_is_believed_while_nothing_is_fused() -> None:
    ready = _QUIET._replace(ready=True)
    fused = _QUIET._replace(mark=_FUSED)
    assert _judge(_QUIET, ready, declined=Reason.NO_MEMORY) == ("plain", Reason.NO_MEMORY)
    assert _judge(fused, ready, declined=Reason.NO_MEMORY) == ("fused", Reason.NONE)


def test_an_order_to_defuse_holds_before_the_first_byte() -> None:
    ready = _QUIET._replace(ready=True)
    assert _judge(ready, ready, wish=Reason.REQUEST) == ("plain", Reason.REQUEST)


def test_rings_are_small_once_memory_is_short(segment: int) -> None:
    os.pwrite(segment, bytes(8192), 0)
    budget = Budget(1 << 20, memory=8 * 8192)
    budget.measure([])
    assert budget.ring_size() == 1 << 20
    budget.measure([segment])
    assert budget.ring_size() == segments.RING_THRIFTY
