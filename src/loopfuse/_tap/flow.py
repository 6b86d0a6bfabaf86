"""From what the two ends of one connection recorded to packets that follow on each other.

Each direction counts from 1, the first byte of its ring. An acknowledgement says how much of the
other direction the capture has seen by then, so it never runs ahead of it. What was lost leaves
a gap in the numbers, as in any capture.
"""

from __future__ import annotations

from loopfuse._capture_ring import Kind, Record
from loopfuse._messages import EndRow, TapConnection, TapEnd
from loopfuse._tap.packet import Flags, Packet, Tapped, printable

ACK_EVERY = 256 * 1024
"""A direction without an answer is acknowledged once in so many bytes: readers remember all that
is not, and take 2 GiB of it for a mistake."""


class _Direction:
    """What the capture has seen of one."""

    def __init__(self, position: int, fresh: bool) -> None:
        self.next = position
        """The first byte it has not seen."""
        self.known = fresh
        """Has anything been seen, or can nothing have come before?"""
        self.pid: int | None = None
        self.ended = False
        """FIN or RST has been sent."""
        self.after = 1
        """What the next number is ahead of `next`: SYN counts, FIN counts too."""
        self.unanswered = 0

    @property
    def seq(self) -> int:
        return self.next + self.after


class Flow:
    """One connection while it is tapped."""

    def __init__(self, opened: TapConnection) -> None:
        self.connection = Tapped(opened.id, opened.family, opened.client, opened.server)
        self._opened = opened
        self._greeted = not opened.fresh
        self._reset = False
        self._both = (
            _Direction(opened.to_server, opened.fresh),
            _Direction(opened.to_client, opened.fresh),
        )
        self.missing = 0
        """Payload bytes that went through the rings while it was tapped, but were not seen."""
        self.repeated = 0
        """Records of bytes that were seen before: their sender died before it had sent them."""

    def packets(self, record: Record) -> list[Packet]:
        """What one record comes to."""
        direction = self._both[record.direction]
        if direction.ended and record.kind == Kind.DATA:
            self.repeated += 1
            return []
        if (direction.ended and record.kind == Kind.FIN) or (
            self._reset and record.kind != Kind.DATA
        ):
            return []  # said twice, or more than TCP would have said
        found: list[Packet] = []
        payload, length = record.payload, record.length
        if record.position < direction.next and not direction.known:
            direction.next = record.position  # the tap was told of too much
        skip = direction.next - record.position
        if skip > 0 and record.kind == Kind.DATA:
            self.repeated += 1
            if skip >= length:
                return found
            payload, length = payload[skip:], length - skip
        elif skip < 0:
            if direction.known:
                self.missing -= skip
            direction.next = record.position
        comment = self._comment(record, direction)
        direction.known = True
        direction.pid = record.pid
        flags = _FLAGS[record.kind]
        found.append(self._packet(record, flags, length, payload, comment))
        direction.next += length
        self._note_end(direction, record.kind)
        direction.unanswered += length
        self._both[1 - record.direction].unanswered = 0
        if direction.unanswered >= ACK_EVERY:
            found.append(self._acknowledge(record))
        return found

    def _note_end(self, direction: _Direction, kind: Kind) -> None:
        direction.ended |= kind != Kind.DATA
        direction.after += kind == Kind.FIN
        self._reset |= kind == Kind.RST

    def close(self, closed: TapEnd) -> list[Packet]:
        """The last packets: FIN of those ends that did not say that they sent it (a process that
        just exits, or is killed, does not)."""
        found = []
        told = (
            (closed.to_server, closed.to_server_ended),
            (closed.to_client, closed.to_client_ended),
        )
        for index, (total, ended) in enumerate(told):
            direction = self._both[index]
            if total > direction.next and direction.known:
                self.missing += total - direction.next
                direction.next = total
            if direction.ended or ended or self._reset or not direction.known or not self._greeted:
                continue
            comment = "made up: the connection is over, and its end came at this time or before"
            found.append(self._made_up(index, closed.time, Flags.FIN | Flags.ACK, comment))
            self._note_end(direction, Kind.FIN)
        return found

    def _comment(self, record: Record, direction: _Direction) -> str:
        """Of the first packet that a process sends in a direction."""
        if record.pid == direction.pid:
            return ""
        end = self.connection.server if record.direction else self.connection.client
        parts = [f"sent by {_who(end, record.pid)}"]
        if not direction.known and record.position:
            parts.append(f"{record.position} bytes went through the ring before the capture")
        if direction.pid is None and record.tcp_before:
            parts.append(f"{record.tcp_before} bytes went by TCP before it was fused")
        return "; ".join(parts)

    def handshake(self, record: Record) -> list[Packet]:
        """Of a connection that is seen from its first ring byte on; to be asked before its first
        record is taken in. Older than that: other connections' packets may belong in between."""
        if self._greeted:
            return []
        self._greeted = True
        client, server = self.connection.client, self.connection.server
        comment = (
            f"made up, as of the time when the broker paired {_who(client, client.pid)} "
            f"and {_who(server, server.pid)}; connection {self.connection.id}"
        )
        when = min(self._opened.time, record.time)
        syn = self._made_up(0, when, Flags.SYN, comment)._replace(seq=0, ack=0)
        answer = self._made_up(1, when, Flags.SYN | Flags.ACK, "made up")._replace(seq=0, ack=1)
        return [syn, answer, self._made_up(0, when, Flags.ACK, "made up")]

    def _acknowledge(self, record: Record) -> Packet:
        self._both[record.direction].unanswered = 0
        return self._made_up(1 - record.direction, record.time, Flags.ACK, "made up")

    def _made_up(self, index: int, when: int, flags: Flags, comment: str) -> Packet:
        seq, ack = self._both[index].seq, self._both[1 - index].seq
        to_server = index == 0
        return Packet(when, self.connection, to_server, flags, seq, ack, 0, b"", None, comment)

    def _packet(
        self, record: Record, flags: Flags, length: int, payload: bytes, comment: str
    ) -> Packet:
        index = record.direction
        seq, ack = self._both[index].seq, self._both[1 - index].seq
        to_server = index == 0
        return Packet(
            record.time,
            self.connection,
            to_server,
            flags,
            seq,
            ack,
            length,
            payload,
            record.pid,
            comment,
        )


_FLAGS = {
    Kind.DATA: Flags.PSH | Flags.ACK,
    Kind.FIN: Flags.FIN | Flags.ACK,
    Kind.RST: Flags.RST | Flags.ACK,
}


def _who(end: EndRow, pid: int | None) -> str:
    """A forked child has its parent's name for all that is known."""
    return f"{printable(end.comm or 'a process')} (pid {pid})" if pid is not None else "a process"
