"""From claims to pairs.

A claim that the kernel confirms waits until its mirror image comes. Then both are
looked up once more (the first one's socket may have been closed and its port used
again), and if both sockets are there at the same moment, established, in one namespace,
with mirrored addresses of this host, and not bound to two devices, they are connected to
each other.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import Counter

from loopfuse._broker_state.budget import Budget
from loopfuse._broker_state.client import Client
from loopfuse._broker_state.decisions import Decisions
from loopfuse._broker_state.ledger import Connection, End, Ledger
from loopfuse._broker_state.log import Log
from loopfuse._broker_state.permission import Permission
from loopfuse._broker_state.prospects import Prospects
from loopfuse._broker_state.taps import Taps
from loopfuse._broker_state.verify import Verdict, Verifier
from loopfuse._matching import Endpoint, Name, client_end, local_end, name_of, remote_end
from loopfuse._reasons import Reason
from loopfuse._segments import make_segment
from loopfuse._sockdiag import SocketInfo
from loopfuse._wire import Claim, Fuse, Refuse, Side, pack_fuse, pack_refuse

CLAIMS_PER_CLIENT = 65536
_SHORT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS)

_HOPEFUL = (Reason.NONE, Reason.NO_COUNTERPART)
"""With any other reason, an end that is known has declined or been refused, for good."""


class Pairing:
    """Takes in what libraries say about connections, and answers."""

    def __init__(
        self,
        ledger: Ledger,
        verifier: Verifier,
        permission: Permission,
        budget: Budget,
        taps: Taps,
        decisions: Decisions,
        log: Log,
    ) -> None:
        self._ledger = ledger
        self._verifier = verifier
        self._permission = permission
        self._budget = budget
        self._taps = taps
        self._decisions = decisions
        self._tally = ledger.tally
        self._log = log
        self.given: Counter[str] = Counter()
        """How often each reason has been given or heard."""
        self.prospects = Prospects(ledger, verifier, self._lose_hope)

    def on_claim(self, client: Client, claim: Claim) -> None:
        """One end wants to be fused."""
        if len(client.connections) >= CLAIMS_PER_CLIENT:
            client.fail(f"has more than {CLAIMS_PER_CLIENT} claims")
            return
        verdict = self._check(client, claim)
        if verdict.info is None:
            self._decisions.refused(client, verdict.reason)
            self._tally.declined[verdict.reason.code] += 1
            self._refuse(client, claim.claim_id, verdict.reason)
            return
        connection = self._connection(client, claim)
        end = _end(client, claim)
        self._decisions.claimed(connection, end)
        if connection.paired:
            self._refuse(client, claim.claim_id, Reason.TOO_LATE)
        elif verdict.reason != Reason.NONE:
            self._give_up(connection, end, verdict.reason)
        else:
            self._seek_partner(connection, end, claim, verdict.info)

    def on_decline(self, client: Client, claim: Claim) -> None:
        """One end will never be fused, or has given up a part of it."""
        reason = _known(claim.reason)
        self.given[reason.code] += 1
        if len(client.connections) >= CLAIMS_PER_CLIENT:
            return
        if self._check(client, claim).info is None:
            return
        connection = self._connection(client, claim)
        if connection.paired:
            connection.reason = reason
            self._decisions.defused(connection, reason, f"says {client.describe()}")
            return
        self._decisions.withdrawn(connection, reason, client)
        self._place(connection, _end(client, claim), reason)
        waiting, connection.waiting = connection.waiting, None
        if waiting is not None and waiting.endpoint != local_end(claim):
            self._refuse(waiting.client, waiting.claim_id, reason)

    def on_client_gone(self, client: Client) -> list[int]:
        """Its waiting claims go with it; returns the ids of the connections left, which
        a forked child may still hold."""
        for connection_id in list(client.connections):
            connection = self._ledger.get(connection_id)
            waiting = connection.waiting if connection else None
            if connection and waiting and waiting.client is client:
                self._ledger.remove_end(connection, waiting)
        return list(client.connections)

    # -- one claim ------------------------------------------------------------------

    def _check(self, client: Client, claim: Claim) -> Verdict:
        return self._verifier.check(
            client.credentials,
            claim.netns_cookie,
            local_end(claim),
            remote_end(claim),
            claim.cookie,
        )

    def _connection(self, client: Client, claim: Claim) -> Connection:
        """The connection a confirmed claim belongs to. One of the same name whose socket
        at this end was another is over: the port has been used again."""
        name = name_of(claim.netns_cookie, local_end(claim), remote_end(claim))
        connection = self._ledger.find(name)
        if connection is not None:
            known = connection.ends.get(local_end(claim))
            if known is None or known.cookie == claim.cookie:
                return connection
            self._ledger.close(connection)
        return self._ledger.open(name)

    def _place(self, connection: Connection, end: End, reason: Reason, detail: str = "") -> None:
        self._ledger.set_end(connection, end)
        if connection.reason in _HOPEFUL and reason not in _HOPEFUL:
            self._tally.declined[reason.code] += 1
        connection.reason = reason
        connection.detail = detail
        connection.client_end = _client_by(end, connection.name)

    def _seek_partner(
        self, connection: Connection, end: End, claim: Claim, info: SocketInfo
    ) -> None:
        waiting = connection.waiting
        if waiting is not None and waiting.endpoint == end.endpoint:
            if waiting.client is not end.client:  # the socket has changed hands
                self._refuse(waiting.client, waiting.claim_id, Reason.SHARED_DESCRIPTOR)
            waiting = None
        if waiting is not None:
            other = self._recheck(waiting, end, claim)
            if other is not None:
                if _are_apart(info, other):
                    self._refuse_both(connection, waiting, end, Reason.NOT_VERIFIED)
                else:
                    self._match(connection, waiting, end)
                return
            self._ledger.close(connection)
            connection = self._ledger.open(connection.name)
        self._wait(connection, end, claim)

    def _recheck(self, waiting: End, end: End, claim: Claim) -> SocketInfo | None:
        """None: its claim holds no more."""
        who = waiting.client.credentials
        verdict = self._verifier.check(
            who, claim.netns_cookie, waiting.endpoint, end.endpoint, waiting.cookie
        )
        return verdict.info if verdict.reason == Reason.NONE else None

    def _wait(self, connection: Connection, end: End, claim: Claim) -> None:
        """No partner yet: is there any hope of one?"""
        view = self._verifier.view(claim.netns_cookie)
        mirror = view.find(remote_end(claim), end.endpoint) if view else None
        if mirror is None:
            self._give_up(connection, end, Reason.NOT_VERIFIED)
            return
        stranger = mirror.inode and mirror.uid != end.uid and end.uid != 0
        if stranger and not self._verifier.may_cross_users():
            self._give_up(connection, end, Reason.FOREIGN_USER)
            return
        other = connection.ends.get(remote_end(claim))
        if other and other.cookie == mirror.cookie and connection.reason not in _HOPEFUL:
            self._give_up(connection, end, connection.reason, connection.detail)
            return
        ends = {end.endpoint: end}
        no = self._permission.objection(connection.name, _client_by(end, connection.name), ends)
        if no is not None:
            self._give_up(connection, end, no.reason, no.detail)
            return
        self._wait_alone(connection, end)

    def _wait_alone(self, connection: Connection, end: End) -> None:
        """The claim stands until its counterpart comes."""
        known = self._ledger.find(connection.name) or self._ledger.open(connection.name)
        self._place(known, end, Reason.NO_COUNTERPART)
        known.waiting = end
        self.prospects.examine(known)

    def _lose_hope(self, connection: Connection) -> None:
        """The other end is held by processes that will never claim it."""
        waiting, connection.waiting = connection.waiting, None
        if waiting is not None:
            self._give_up(connection, waiting, Reason.NO_COUNTERPART)

    def _give_up(self, connection: Connection, end: End, reason: Reason, detail: str = "") -> None:
        """Refuses, and keeps a row that says why."""
        self._place(connection, end, reason, detail)
        self._decisions.declined(connection, reason, detail, end.client)
        self._refuse(end.client, end.claim_id, reason)

    def _refuse(self, client: Client, claim_id: int, reason: Reason) -> None:
        self.given[reason.code] += 1
        self._log.debug(f"refused a claim of {client.describe()}: {reason.code}")
        client.send(pack_refuse(Refuse(claim_id, reason)))

    # -- two claims -----------------------------------------------------------------

    def _match(self, connection: Connection, first: End, second: End) -> None:
        if first.uid != second.uid and not self._verifier.may_cross_users():
            self._refuse_both(connection, first, second, Reason.FOREIGN_USER)
            return
        client = client_end((first.endpoint, first.side), (second.endpoint, second.side))
        ends = {first.endpoint: first, second.endpoint: second}
        no = self._permission.objection(connection.name, client, ends)
        if no is not None:
            self._refuse_both(connection, first, second, no.reason, no.detail)
            return
        try:
            self._fuse(connection, first, second, client)
        except OSError as error:
            short = error.errno in _SHORT_OF_DESCRIPTORS
            reason = Reason.NO_DESCRIPTORS if short else Reason.NO_MEMORY
            self._tally.errors["pair"] += 1
            self._log.warning(f"can't make a pair: {error.strerror}")
            self._refuse_both(connection, first, second, reason)

    def _refuse_both(
        self, connection: Connection, first: End, second: End, reason: Reason, detail: str = ""
    ) -> None:
        connection.waiting = None
        self._refuse(first.client, first.claim_id, reason)
        self._give_up(connection, second, reason, detail)

    def _fuse(self, connection: Connection, first: End, second: End, client: Endpoint) -> None:
        """Makes the pair and hands it out. Raises OSError if nobody got anything."""
        pids = (first.client.credentials.pid, second.client.credentials.pid)
        self._budget.refresh(self._ledger.segments())
        ring_size = self._budget.ring_size(pids)
        segment = make_segment(connection.id, ring_size)
        try:
            bells = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            os.close(segment)
            raise
        # Our copies of the bells go at once: the kernel's count of the others is what
        # tells an end that nobody holds the other any more.
        with bells[0], bells[1]:
            try:
                memory = (segment, ring_size)
                self._taps.before_hand_out(connection, segment, client, first, second)
                sent = self._hand_out(connection, first, second, client, memory, bells[0])
            except OSError:
                os.close(segment)
                raise
            if not sent:
                os.close(segment)
                self._ledger.remove_end(connection, first)
                self._wait_alone(connection, second)
                return
            self._ledger.set_end(connection, second)
            self._ledger.pair(connection, segment, client)
            try:
                self._hand_out(connection, second, first, client, memory, bells[1])
            except OSError:
                # The first end's doorbell hangs up, and it goes on in TCP.
                self._ledger.unpair(connection, Reason.NO_DESCRIPTORS)
                self._decisions.declined(connection, Reason.NO_DESCRIPTORS, "", second.client)
                self._refuse(second.client, second.claim_id, Reason.NO_DESCRIPTORS)
            else:
                self._decisions.paired(connection, ring_size)
                self._tally.paired(time.monotonic() - connection.opened)

    def _hand_out(
        self,
        connection: Connection,
        end: End,
        peer: End,
        client: Endpoint,
        segment: tuple[int, int],
        bell: socket.socket,
    ) -> bool:
        """`segment`: its descriptor, and the size of each of its rings."""
        side = Side.CLIENT if end.endpoint == client else Side.SERVER
        message = Fuse(end.claim_id, connection.id, side, segment[1], peer.limit)
        return end.client.send(pack_fuse(message), (segment[0], bell.fileno()))


def _end(client: Client, claim: Claim) -> End:
    return End(client, local_end(claim), claim.cookie, claim.claim_id, claim.side, claim.limit)


def _are_apart(one: SocketInfo, other: SocketInfo) -> bool:
    """Bound to two devices: the same addresses may be at both (link-local ones), each of the
    sockets connected to another host's."""
    return 0 != one.interface != other.interface != 0


def _client_by(end: End, name: Name) -> Endpoint:
    """The client's end, if this end is to be believed."""
    return end.endpoint if end.side == Side.CLIENT else name.other(end.endpoint)


def _known(number: int) -> Reason:
    try:
        return Reason(number)
    except ValueError:
        return Reason.NONE
