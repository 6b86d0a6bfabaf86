"""A tap: the broker that switches it on, the capture rings, and the packets that come of it.

Nobody waits for a tap: what it does not take out of the rings in time is lost to it, and counted.
It is over when its connection to the broker is: the broker then switches it off, however it ended.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import msgspec

from loopfuse._broker_start import start_unless_running
from loopfuse._capture_ring import CaptureRing, Record, cells_for
from loopfuse._control import reach
from loopfuse._errors import TapError
from loopfuse._messages import (
    ErrorReply,
    TapCapture,
    TapClosed,
    TapEnd,
    TapEvent,
    TapOpened,
    TapRequest,
    TapStarted,
)
from loopfuse._runtime_dir import broker_path
from loopfuse._tap.filter import Filter
from loopfuse._tap.flow import Flow
from loopfuse._tap.packet import Packet

SNAP_DEFAULT = 262144
BUFFER_DEFAULT = 16 << 20
_LARGEST_PACKET = 1 << 16
_RECORDS_A_TURN = 4096
_MOST_HELD = 65536
_FIRST_NAP = 0.001
_LONGEST_NAP = 0.02
_LAST_RECORDS = 0.1
"""Seconds that a record which was begun before the end may take."""


class TapStatistics(NamedTuple):
    """What a tap has come to so far."""

    packets: int
    """That were handed out, those made up included."""
    received: int
    """Before the filter."""
    lost: int
    """Records for which the capture rings had no room, since nobody took them out in time."""
    missing: int
    """Payload bytes of tapped connections that were sent, but not seen: those of lost records,
    and what a process sent before it knew where to."""
    damaged: int
    """Records that made no sense, or were not finished by a process that died."""
    connections: int
    """Seen so far."""


class _Closing(NamedTuple):
    """A connection that is over, as soon as each ring has been read so far."""

    end: TapEnd
    until: dict[int, int]


class Tap:
    """What fused connections send, as packets. An iterator, and a context manager that switches
    the tap off at its end.

    It sees the connections that its user may see (those with an end of that user; root: all),
    and of these what `ids` (of `loopfuse ps`), `pids` and `ports` leave; `filter`, in libpcap's
    language, then chooses packets. Connections made while it runs are seen from the first byte in
    their rings, others from where they are. Bytes that travel by TCP are not seen; tcpdump sees
    those.

    The iterator waits for packets and ends after `stop()`, or when the broker has gone. Who takes
    packets too slowly loses some: `statistics()` counts them, and the programs never wait.

    Raises TapError (FilterError: no such filter), BrokerError.
    """

    def __init__(
        self,
        filter: str | None = None,
        *,
        ids: Iterable[int] = (),
        pids: Iterable[int] = (),
        ports: Iterable[int] = (),
        snap: int = SNAP_DEFAULT,
        buffer: int = BUFFER_DEFAULT,
        path: Path | None = None,
    ) -> None:
        """`snap`: bytes of each packet's payload that are kept. `buffer`: bytes for what nobody
        has taken yet, of each user whose programs are tapped. `path`: of the broker's socket; by
        default the user's broker, which is started if there is none."""
        self._filter = Filter(filter) if filter else None
        self._request = TapRequest(list(ids), list(pids), list(ports), snap, cells_for(buffer))
        self._rings: dict[int, CaptureRing] = {}
        self._next_ring = 0
        self._flows: dict[int, Flow] = {}
        self._closing: deque[_Closing] = deque()
        self._held: list[Record] = []
        self._packets = self._received = self._connections = self._unknown = 0
        self._missing = self._repeated = 0
        self._lost = self._damaged = 0
        self._stopping = False
        self._final: dict[int, int] | None = None
        """Once it has ended: how far each ring is still to be read."""
        self._over_at = 0.0
        self.ended: str | None = None
        """Why it ended by itself; None: it did not."""
        self.foreign = 0
        """Connections that were asked for, but belong to other users."""
        self._socket = self._connect(path)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    # -- beginning and end ----------------------------------------------------------

    def _connect(self, path: Path | None) -> socket.socket:
        where = broker_path() if path is None else path
        start_unless_running(where)
        return reach(where)

    def _begin(self) -> None:
        try:
            self._socket.send(msgspec.json.encode(self._request))
            while not isinstance(event := self._hear(), TapStarted):
                if event is None:
                    raise TapError("the broker hung up instead of tapping")
                self._heed(event)
        except OSError as error:
            raise TapError(f"the broker does not answer: {error.strerror or error}") from error
        self.foreign = event.foreign
        self._socket.setblocking(False)

    def __enter__(self) -> Tap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def stop(self) -> None:
        """Ends the iteration after what has been sent by now. May be called from a signal
        handler or another thread."""
        self._stopping = True

    def close(self) -> None:
        """Switches the tap off and gives its memory back. What was not taken is dropped."""
        self._socket.close()
        for ring in self._rings.values():
            self._lost += ring.lost
            self._damaged += ring.damaged
            ring.close()
        self._rings.clear()

    def statistics(self) -> TapStatistics:
        """What it has come to so far."""
        rings = self._rings.values()
        flows = self._flows.values()
        return TapStatistics(
            packets=self._packets,
            received=self._received,
            lost=self._lost + sum(ring.lost for ring in rings),
            missing=self._missing + sum(flow.missing for flow in flows),
            damaged=self._damaged
            + self._unknown
            + self._repeated
            + sum(ring.damaged for ring in rings)
            + sum(flow.repeated for flow in flows),
            connections=self._connections,
        )

    # -- packets --------------------------------------------------------------------

    def __iter__(self) -> Iterator[Packet]:
        while (packets := self.take()) is not None:
            yield from packets

    def take(self, timeout: float | None = None) -> list[Packet] | None:
        """What has come since the last call, in the order in which it was sent; waits for
        something, `timeout` seconds at the most. None: the tap has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        nap = _FIRST_NAP
        while True:
            if self._socket.fileno() < 0:
                return None
            if self._final is None and (self._stopping or self.ended is not None):
                self._prepare_end()
            packets = self._turn()
            if packets:
                return packets
            if self._final is not None and self._has_all(self._final):
                return None
            if deadline is not None and (left := deadline - time.monotonic()) <= nap:
                if left <= 0:
                    return []
                nap = left
            self._sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)

    def _sleep(self, seconds: float) -> None:
        """Producers ring no bell: they are not to pay for that. Broker's words end the nap."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.poll(seconds * 1000)

    def _prepare_end(self) -> None:
        """What has been sent by now is still to be handed out, whatever is sent meanwhile."""
        self._listen()
        self._final = {number: ring.reserved for number, ring in self._rings.items()}
        self._over_at = time.monotonic() + _LAST_RECORDS

    def _has_all(self, final: dict[int, int]) -> bool:
        """Or so much of it that the rest won't come: its sender was killed, or is stopped."""
        late = time.monotonic() > self._over_at
        return late or all(self._rings[number].position >= final[number] for number in final)

    def _turn(self) -> list[Packet]:
        """One round. How far the rings go is asked before the broker's words are heard: who
        records in a connection was let to after the broker had told us of it."""
        moment = time.time_ns()
        last = self._final is not None
        until = self._final
        if until is None:
            until = {number: ring.reserved for number, ring in self._rings.items()}
        self._listen()
        now = time.monotonic()
        records = self._held
        self._held = []
        for number, bound in until.items():
            taken = self._rings[number].take(bound, _RECORDS_A_TURN, now)
            if len(taken) == _RECORDS_A_TURN:
                moment = min(moment, taken[-1].time)
            records += taken
        if len(until) > 1:
            records = self._merge(records, moment, last)
        packets: list[Packet] = []
        for record in records:
            flow = self._flows.get(record.pair_id)
            if flow is None:
                self._unknown += 1
            else:
                for one in flow.handshake(record):
                    _insert(packets, one)
                packets += flow.packets(record)
        packets += self._close_flows()
        return self._choose(packets)

    def _merge(self, records: list[Record], moment: int, last: bool) -> list[Record]:
        """Several rings in one order. A time is taken after a place in the ring is: all records
        older than the moment before we asked how far the rings go are among these."""
        latest = time.time_ns()
        records = [
            one if one.time <= latest else one._replace(time=latest)  # nobody sends in the future
            for one in records
        ]
        records.sort(key=lambda record: record.time)
        # Times may be lies, too: whoever sends from the past can't keep others waiting for ever.
        if not last and len(records) <= _MOST_HELD:
            self._held = [one for one in records if one.time > moment]
            del records[len(records) - len(self._held) :]
        return records

    def _choose(self, packets: list[Packet]) -> list[Packet]:
        self._received += len(packets)
        if self._filter is not None:
            chosen = []
            for one in packets:
                data = one.to_ip()
                if self._filter.matches(data, len(data) - len(one.payload) + one.length):
                    chosen.append(one)
            packets = chosen
        self._packets += len(packets)
        return packets

    def _close_flows(self) -> list[Packet]:
        packets: list[Packet] = []
        for _ in range(len(self._closing)):
            closing = self._closing.popleft()
            behind = any(
                number in self._rings and self._rings[number].position < until
                for number, until in closing.until.items()
            )
            if behind or self._held:
                self._closing.append(closing)
                continue
            flow = self._flows.pop(closing.end.id, None)
            if flow is not None:
                packets += flow.close(closing.end)
                self._missing += flow.missing
                self._repeated += flow.repeated
        return packets

    # -- the broker's words ---------------------------------------------------------

    def _listen(self) -> None:
        """Takes in all that the broker has said."""
        while self.ended is None:
            try:
                event = self._hear()
            except BlockingIOError:
                return
            except OSError as error:
                self.ended = f"the broker can't be heard any more: {error.strerror}"
                return
            if event is None:
                self.ended = "the broker has gone, or has ended the tap"
                return
            self._heed(event)

    def _hear(self) -> TapEvent | None:
        """The next event, with what it brings taken over; None: no more will come."""
        room = socket.CMSG_SPACE(4 * 4)
        packet, ancillary, _, _ = self._socket.recvmsg(
            _LARGEST_PACKET, room, socket.MSG_CMSG_CLOEXEC
        )
        fds = array.array("i")
        for _, _, data in ancillary:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        try:
            if not packet:
                return None
            event = _decode(packet)
            if isinstance(event, TapCapture):
                self._open_ring(event, fds)
            return event
        finally:
            for fd in fds:
                os.close(fd)

    def _open_ring(self, event: TapCapture, fds: array.array[int]) -> None:
        if not fds:
            raise TapError("there are no file descriptors left for a capture ring")
        try:
            self._rings[self._next_ring] = CaptureRing(fds.pop(0), event.cells)
        except OSError as error:
            raise TapError(f"a capture ring can't be mapped: {error.strerror}") from error
        self._next_ring += 1

    def _heed(self, event: TapEvent) -> None:
        if isinstance(event, TapOpened):
            self._connections += len(event.connections)
            self._flows |= {one.id: Flow(one) for one in event.connections}
        elif isinstance(event, TapClosed):
            # Nobody sends in it any more: what is to come lies in the rings by now.
            until = {number: ring.reserved for number, ring in self._rings.items()}
            self._closing += [_Closing(one, until) for one in event.connections]


def _insert(packets: list[Packet], one: Packet) -> None:
    """At its time."""
    at = len(packets)
    while at and packets[at - 1].time > one.time:
        at -= 1
    packets.insert(at, one)


def _decode(packet: bytes) -> TapEvent:
    with contextlib.suppress(msgspec.DecodeError):
        event: TapEvent = msgspec.json.decode(packet, type=TapEvent)
        return event
    try:
        said = msgspec.json.decode(packet, type=ErrorReply).error
    except msgspec.DecodeError:
        said = "it gave no proper answer"
    raise TapError(
        f"the broker does not tap: {said}",
        hint="If it was started by another loopfuse version, end it; the next `loopfuse run` "
        "starts a new one.",
    )


def tap(
    filter: str | None = None,
    *,
    ids: Iterable[int] = (),
    pids: Iterable[int] = (),
    ports: Iterable[int] = (),
    snap: int = SNAP_DEFAULT,
    buffer: int = BUFFER_DEFAULT,
    path: Path | None = None,
) -> Tap:
    """Captures what fused connections carry::

        with loopfuse.tap("tcp port 6379") as packets:
            for packet in packets:
                print(packet.text())

    See `Tap`, which it returns.
    """
    return Tap(filter, ids=ids, pids=pids, ports=ports, snap=snap, buffer=buffer, path=path)
