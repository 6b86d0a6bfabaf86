"""From records to packets to a file: what tshark, which knows nothing of us, makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopfuse._capture_ring import Kind, Record
from loopfuse._errors import FilterError
from loopfuse._messages import EndRow, TapConnection, TapEnd
from loopfuse._tap import pcapng
from loopfuse._tap.filter import Filter
from loopfuse._tap.flow import ACK_EVERY, Flow
from loopfuse._tap.packet import Flags, Packet, Tapped
from tap.captures import assert_clean, fields, reassembled, tshark

NOW = 1_700_000_000_123_456_789
ADDRESSES = {"ipv4": ("127.0.0.1", "127.0.0.2"), "ipv6": ("::1", "fe80::1:2")}


def opened(
    family: str = "ipv4", *, fresh: bool = True, heads: tuple[int, int] = (0, 0)
) -> TapConnection:
    client, server = ADDRESSES[family]
    return TapConnection(
        id=7,
        family="ipv6" if family == "ipv6" else "ipv4",
        client=EndRow(11, "one", 0, client, 40000),
        server=EndRow(12, "other", 0, server, 9999),
        time=NOW,
        fresh=fresh,
        to_server=heads[0],
        to_client=heads[1],
    )


def record(direction: int, position: int, payload: bytes, kind: Kind = Kind.DATA) -> Record:
    when = NOW + 1000 + position
    return Record(7, when, position, 0, len(payload), 11 + direction, direction, kind, payload)


def closed(to_server: int, to_client: int) -> TapEnd:
    return TapEnd(7, NOW + 10**9, to_server, to_client, False, False)


def packets_of(flow: Flow, records: list[Record]) -> list[Packet]:
    packets: list[Packet] = []
    for one in records:
        packets += flow.handshake(one) + flow.packets(one)
    return packets


def write(file: Path, packets: list[Packet]) -> None:
    totals = pcapng.Totals(NOW, NOW + 1, len(packets), 3, "three were lost")
    blocks = [pcapng.begin(262144, "tcp"), *map(pcapng.packet, packets), pcapng.end(totals)]
    file.write_bytes(b"".join(blocks))


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_conversation_is_clean_and_whole(tmp_path: Path, family: str) -> None:
    flow, records, at = Flow(opened(family)), [], [0, 0]
    sent = [b"", b""]
    for number in range(60):
        direction = number % 2
        payload = bytes([number]) * (number * 541 % 32768 + 1)
        records.append(record(direction, at[direction], payload))
        at[direction] += len(payload)
        sent[direction] += payload
    packets = packets_of(flow, records) + flow.close(closed(*at))
    write(tmp_path / "c.pcapng", packets)
    assert_clean(tmp_path / "c.pcapng")
    assert reassembled(tmp_path / "c.pcapng") == tuple(sent)
    assert flow.missing == 0


def test_times_are_kept_to_the_nanosecond(tmp_path: Path) -> None:
    write(tmp_path / "c.pcapng", packets_of(Flow(opened(fresh=False)), [record(0, 0, b"x")]))
    assert fields(tmp_path / "c.pcapng", ["frame.time_epoch"]) == [["1700000000.123457789"]]


def test_a_loss_is_a_gap_and_counted(tmp_path: Path) -> None:
    flow = Flow(opened())
    packets = packets_of(flow, [record(0, 0, b"abc"), record(0, 10, b"def"), record(1, 0, b"x")])
    assert flow.missing == 7
    assert packets[-1].ack == 14
    write(tmp_path / "c.pcapng", packets)
    assert len(tshark(tmp_path / "c.pcapng", "-Y", "tcp.analysis.lost_segment")) == 1


def test_a_tap_that_came_late_counts_nothing_as_lost() -> None:
    flow = Flow(opened(fresh=False, heads=(100, 200)))
    packets = packets_of(flow, [record(0, 150, b"abc"), record(1, 200, b"x")])
    assert [one.seq for one in packets] == [151, 201]
    assert [one.ack for one in packets] == [201, 154]
    assert flow.missing == 0


def test_bytes_that_were_recorded_twice_are_shown_once() -> None:
    flow = Flow(opened())
    packets = packets_of(
        flow, [record(0, 0, b"abcdef"), record(0, 3, b"defghi"), record(0, 0, b"a")]
    )
    assert b"".join(one.payload for one in packets) == b"abcdefghi"
    assert flow.repeated == 2


def test_a_one_way_stream_is_acknowledged_now_and_then() -> None:
    flow = Flow(opened())
    piece = bytes(32768)
    records = [record(0, 32768 * number, piece) for number in range(16)]
    answers = [one for one in packets_of(flow, records) if not one.to_server][1:]
    assert [one.ack for one in answers] == [1 + ACK_EVERY, 1 + 2 * ACK_EVERY]


def test_the_end_is_said_once() -> None:
    flow = Flow(opened())
    packets = packets_of(flow, [record(0, 0, b"a"), record(0, 1, b"", Kind.FIN)])
    packets += packets_of(flow, [record(0, 1, b"", Kind.FIN), record(1, 0, b"b")])
    packets += flow.close(closed(1, 1))
    ends = [(one.to_server, one.seq) for one in packets if one.flags & Flags.FIN]
    assert ends == [(True, 2), (False, 2)]


def test_what_closed_without_being_seen_is_missing() -> None:
    flow = Flow(opened())
    packets_of(flow, [record(0, 0, b"abc")])
    flow.close(closed(10, 5))
    assert flow.missing == 7 + 5


numbers = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            lambda when, position, before, cut, pid, direction, kind, payload: Record(
                7,
                when,
                position,
                before,
                len(payload) + cut if kind == Kind.DATA else 0,
                pid,
                direction,
                kind,
                payload if kind == Kind.DATA else b"",
            ),
            st.integers(-(2**63), 2**63 - 1),
            numbers,
            numbers,
            st.integers(1, 9),
            st.integers(0, 2**32 - 1),
            st.integers(0, 1),
            st.sampled_from(Kind),
            st.binary(max_size=20),
        )
    )
)
def test_no_record_makes_it_stumble(records: list[Record]) -> None:
    flow = Flow(opened())
    for one in packets_of(flow, records):
        assert pcapng.packet(one) and one.text()


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=3
)
@given(st.lists(st.binary(min_size=1, max_size=70), min_size=1, max_size=200))
def test_checksums_of_any_bytes_are_right(tmp_path: Path, payloads: list[bytes]) -> None:
    at, records = 0, []
    for payload in [*payloads, b"\0", bytes(8), b"\xff" * 9, b"\xff\xff" * 2000]:
        records.append(record(0, at, payload))
        at += len(payload)
    write(tmp_path / "c.pcapng", packets_of(Flow(opened()), records))
    assert_clean(tmp_path / "c.pcapng")


def test_the_statistics_say_what_was_lost(tmp_path: Path) -> None:
    write(tmp_path / "c.pcapng", packets_of(Flow(opened()), [record(0, 0, b"x")]))
    assert b"three were lost" in (tmp_path / "c.pcapng").read_bytes()
    assert len(tshark(tmp_path / "c.pcapng")) == 4


def _packet(payload: bytes = b"hello") -> Packet:
    ends = opened()
    tapped = Tapped(1, "ipv4", ends.client, ends.server)
    return Packet(NOW, tapped, True, Flags.PSH | Flags.ACK, 1, 1, len(payload), payload, 11)


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("tcp", True),
        ("port 9999", True),
        ("src port 9999", False),
        ("host 127.0.0.2 and dst port 9999", True),
        ("host 10.0.0.1", False),
        ("ip6", False),
        ("greater 46", False),
        ("tcp[20:4] = 0x68656c6c", True),
        ("tcp[tcpflags] & tcp-syn != 0", False),
    ],
)
def test_filters_mean_what_they_mean_to_tcpdump(text: str, passes: bool) -> None:
    data = _packet().to_ip()
    assert Filter(text).matches(data, len(data)) is passes


@pytest.mark.parametrize("text", ["prot 80", "port", "((", "host nobody.invalid.", "\0"])
def test_what_is_no_filter_is_refused_with_its_reason(text: str) -> None:
    with pytest.raises(FilterError) as caught:
        Filter(text)
    assert caught.value.message


def test_without_libpcap_a_filter_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loopfuse._tap.filter._NAMES", ("libpcap-that-is-not-there.so",))
    with pytest.raises(FilterError, match="libpcap") as caught:
        Filter("tcp")
    assert caught.value.hint
