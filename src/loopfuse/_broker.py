"""The broker: it pairs the two ends of a connection and hands them their shared memory.

One thread, one epoll loop, nothing in it waits for anybody: a client that sends
garbage, does not read or dies costs itself only. The broker is never between two
programs: once it has handed out a pair it could be killed without harm. docs/protocol.md
describes what is said; `loopfuse._broker_state` has the parts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import NamedTuple

from loopfuse import __version__
from loopfuse._broker_state.budget import Budget
from loopfuse._broker_state.client import MAILBOX_SIZE, Client
from loopfuse._broker_state.decisions import Decisions
from loopfuse._broker_state.firewall import Firewall
from loopfuse._broker_state.guests import Guests
from loopfuse._broker_state.ledger import Ledger
from loopfuse._broker_state.listening import Listening
from loopfuse._broker_state.log import Log
from loopfuse._broker_state.pairing import Pairing
from loopfuse._broker_state.permission import Permission
from loopfuse._broker_state.requests import Requests
from loopfuse._broker_state.scrapes import Address, Scrapes
from loopfuse._broker_state.sweep import Sweep
from loopfuse._broker_state.tally import Tally
from loopfuse._broker_state.taps import Taps
from loopfuse._broker_state.verify import Verifier
from loopfuse._errors import MetricsError, PolicyError, WireError
from loopfuse._kernel import raise_descriptor_limit
from loopfuse._policy import EVERYTHING, Policy
from loopfuse._policy_file import read_policy
from loopfuse._segments import RING_DEFAULT, check_ring_size
from loopfuse._wire import (
    EAGER,
    GUEST,
    Claim,
    Closed,
    Hello,
    TapAsk,
    Welcome,
    pack_welcome,
    parse_from_library,
)

IDLE_EXIT_DEFAULT = 30.0
_PACKETS_A_TURN = 64
_LARGEST_PACKET = 65536
_LONGEST_SLEEP = 86400.0
"""Seconds; epoll_wait takes no more than 24 days."""
_MOST_CLIENTS = 16384
_HUNG_UP = "hung up"


class Options(NamedTuple):
    """How a broker is to run."""

    idle_exit: float = IDLE_EXIT_DEFAULT
    """Leaves after so many seconds without a client and without a pair; 0: never."""
    ring_size: int = RING_DEFAULT
    """Bytes of each direction's ring, a power of two."""
    log_level: str = "warning"
    policy: Policy = EVERYTHING
    log_target: str | None = None
    """A file's path, "-" for standard output, None for standard error."""
    metrics: Address | None = None
    """Where to serve metrics."""


class Broker:
    """Serves one listening socket until it is idle or told to stop. Takes over the process's
    signals as soon as it is made: who sees it listen may tell it to stop."""

    _listening: Listening

    def __init__(self, options: Options) -> None:
        check_ring_size(options.ring_size)
        self._options = options
        self._log = Log(options.log_level, options.log_target)
        decisions = Decisions(self._log)
        self._most_clients = min(_MOST_CLIENTS, raise_descriptor_limit() // 4)
        self._tally = Tally(reads=options.metrics is not None)
        self._ledger = Ledger(decisions, self._tally)
        self._firewall = Firewall()
        self._verifier = Verifier(self._firewall)
        self._budget = budget = Budget(options.ring_size)
        self._permission = Permission(
            options.policy, self._firewall, self._verifier.home, decisions
        )
        self._taps = Taps(self._ledger, self._log)
        self._pairing = Pairing(
            self._ledger,
            self._verifier,
            self._permission,
            budget,
            self._taps,
            decisions,
            self._log,
        )
        self._sweep = Sweep(self._ledger, self._verifier, decisions)
        self._clients: dict[int, Client] = {}
        self._failed: list[Client] = []
        self._busy_at = time.monotonic()
        self._stopping = False
        self._told_to_reread = False
        self._epoll = select.epoll()
        self._epoll.register(self._firewall, select.EPOLLIN)
        self._scrapes = self._serve_metrics(options.metrics) if options.metrics else None
        self._requests = Requests(
            self._ledger,
            self._pairing,
            self._permission,
            self._taps,
            decisions,
            __version__,
            str(self._scrapes.address) if self._scrapes else None,
        )
        # Given up for a moment when descriptors run out, so that a caller can be
        # accepted and hung up on, instead of being announced for ever.
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._guests = Guests(self._epoll)
        self._waker, self._wake = socket.socketpair()
        self._take_signals()

    def _serve_metrics(self, address: Address) -> Scrapes:
        try:
            from loopfuse._broker_state.exposition import CONTENT_TYPE, Exposition, Now
        except ModuleNotFoundError as error:
            raise MetricsError(
                f"metrics need the package {error.name}", hint="pip install 'loopfuse[metrics]'"
            ) from error

        def now() -> Now:
            plain = len(self._ledger) - self._ledger.pairs
            self._budget.refresh(self._ledger.segments())
            return Now(len(self._clients), plain, self._budget.used)

        exposition = Exposition(self._tally, now, __version__)
        scrapes = Scrapes(address, exposition.text, CONTENT_TYPE, self._epoll)
        self._log.info(f"metrics: http://{scrapes.address}/metrics")
        return scrapes

    def _take_signals(self) -> None:
        self._waker.setblocking(False)
        self._wake.setblocking(False)
        self._epoll.register(self._waker, select.EPOLLIN)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reread)

    def run(self, listening: Listening) -> None:
        """Serves; returns when it is time to leave, with everything closed."""
        _come_before_the_busy()
        self._listening = listening
        self._epoll.register(listening.socket, select.EPOLLIN)
        self._log.info(f"listening on {self._listening.path}")
        try:
            while not self._stopping and not self._idle_for_long():
                for fd, events in self._epoll.poll(self._timeout()):
                    if fd == self._waker.fileno():
                        self._waker.recv(4096)
                    elif self._scrapes is not None and self._scrapes.owns(fd):
                        self._scrapes.serve(fd)
                    elif self._guests.owns(fd):
                        self._guests.leave(fd)
                        self._busy_at = time.monotonic()
                    elif fd != self._firewall.fileno():
                        self._serve(fd, events)
                self._heed_rules()
                self._pairing.prospects.run()
                self._sweep.run()
                self._taps.run()
                self._tally.run(self._ledger)
                if self._scrapes is not None:
                    self._scrapes.run()
                self._reap()
        finally:
            self._close()

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _reread(self, _number: int, _frame: object) -> None:
        self._told_to_reread = True

    def _heed_rules(self) -> None:
        """Has connections defused for which the policy or a packet filter has changed."""
        changed = self._firewall.run(busy=self._ledger.pairs > 0)
        if self._told_to_reread:
            self._told_to_reread = False
            self._log.reopen()
            self._take_policy()
            self._permission.review(self._ledger)
        elif changed:
            self._permission.review(one for one in self._ledger if one.name.netns_cookie in changed)

    def _take_policy(self) -> None:
        source = self._permission.policy.source
        if source is None:
            return
        try:
            self._permission.policy = read_policy(Path(source))
        except PolicyError as error:
            self._tally.errors["policy"] += 1
            self._log.error(f"{error}; the policy that was read before still holds")
        else:
            self._log.info(f"policy: {self._permission.policy.describe()}")

    def _close(self) -> None:
        self._log.info("leaving")
        signal.set_wakeup_fd(-1)
        self._waker.close()
        self._wake.close()
        self._listening.close()
        self._taps.release()
        if self._scrapes is not None:
            self._scrapes.close()
        for client in self._clients.values():
            client.close()
        self._guests.close()
        self._ledger.release()
        self._verifier.close()
        self._firewall.close()
        self._epoll.close()
        os.close(self._reserve)
        self._log.close()

    # -- time -----------------------------------------------------------------------

    def _idle_for_long(self) -> bool:
        if self._clients or self._ledger.pairs or self._guests:
            self._busy_at = time.monotonic()
        limit = self._options.idle_exit
        return limit > 0 and time.monotonic() - self._busy_at >= limit

    def _timeout(self) -> float:
        """Seconds for epoll_wait, -1: for ever."""
        now = time.monotonic()
        due = (
            self._sweep.due(),
            self._pairing.prospects.due(),
            self._firewall.due(busy=self._ledger.pairs > 0),
            self._tally.due() if len(self._ledger) else None,
            self._scrapes.due() if self._scrapes is not None else None,
        )
        times = [moment for moment in due if moment is not None]
        occupied = self._clients or self._ledger.pairs or self._guests
        if self._options.idle_exit > 0 and not occupied:
            times.append(self._busy_at + self._options.idle_exit)
        return min(max(0.0, min(times) - now), _LONGEST_SLEEP) if times else -1

    # -- clients --------------------------------------------------------------------

    def _serve(self, fd: int, events: int) -> None:
        if fd == self._listening.socket.fileno():
            self._accept()
            return
        client = self._clients.get(fd)
        if client is None:
            return
        if events & select.EPOLLOUT:
            client.flush()
        if events & ~select.EPOLLOUT:
            self._receive(client)

    def _accept(self) -> None:
        for _ in range(_PACKETS_A_TURN):
            try:
                sock, _ = self._listening.socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._turn_away()
                return
            if len(self._clients) >= self._most_clients:
                self._tally.errors["turned-away"] += 1
                self._log.warning(f"turned a client away: there are {len(self._clients)}")
                sock.close()
                continue
            try:
                self._welcome_in(sock)
            except OSError as error:
                self._tally.errors["turned-away"] += 1
                self._log.warning(f"turned a client away: {error.strerror}")
                sock.close()

    def _welcome_in(self, sock: socket.socket) -> None:
        """Raises OSError where the kernel can't keep it (user_max_watches, epoll(7))."""
        client = Client(sock, self._client_changed)
        self._epoll.register(client.fd, select.EPOLLIN)
        self._clients[client.fd] = client

    def _turn_away(self) -> None:
        self._tally.errors["turned-away"] += 1
        self._log.warning("turned a client away: no file descriptors left")
        os.close(self._reserve)
        with contextlib.suppress(OSError):
            self._listening.socket.accept()[0].close()
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _client_changed(self, client: Client) -> None:
        if client.failure is not None:
            self._failed.append(client)
            return
        out = select.EPOLLOUT if client.has_queue else 0
        self._epoll.modify(client.fd, select.EPOLLIN | out)

    def _reap(self) -> None:
        """Lets go of those that failed; each may make others fail in turn."""
        while self._failed:
            client = self._failed.pop()
            if client.failure_kind is not None:
                self._tally.errors[client.failure_kind] += 1
            # Every command line hangs up; a client that fails otherwise is worth a line.
            tell = self._log.debug if client.failure == _HUNG_UP else self._log.info
            tell(f"dropped {client.describe()}: {client.failure}")
            del self._clients[client.fd]
            self._sweep.hint(self._pairing.on_client_gone(client))
            self._taps.on_client_gone(client)
            client.close()
            if client.guest and self._options.idle_exit > 0:
                self._guests.note(client.credentials.pid)
            self._busy_at = time.monotonic()

    def _receive(self, client: Client) -> None:
        """Takes in what a client has sent, up to a fair share."""
        for _ in range(_PACKETS_A_TURN):
            if client.failure is not None:
                return
            try:
                packet = client.socket.recv(_LARGEST_PACKET)
            except BlockingIOError:
                return
            except OSError as error:
                client.fail(f"gone ({error.strerror})")
                return
            if not packet:
                client.fail(_HUNG_UP)
                return
            try:
                self._take(client, packet)
            except WireError as error:
                self._log.warning(f"{client.describe()} broke the protocol: {error}")
                client.fail("broke the protocol", "protocol")

    def _take(self, client: Client, packet: bytes) -> None:
        if packet[0] == 0x7B:  # '{'
            self._sweep.run_for_a_list()
            self._requests.answer(client, packet, len(self._clients))
            return
        self._sweep.stir()
        message = parse_from_library(packet)
        if isinstance(message, Claim):
            if not client.greeted:
                raise WireError("a claim came before HELLO")
            if message.declined:
                self._pairing.on_decline(client, message)
            else:
                self._pairing.on_claim(client, message)
        elif isinstance(message, TapAsk):
            if not client.greeted:
                raise WireError("a question about taps came before HELLO")
            self._taps.on_ask(client, message.pair_id)
        elif isinstance(message, Closed):
            self._sweep.hint([message.pair_id])
        else:
            self._welcome(client, message)

    def _welcome(self, client: Client, hello: Hello) -> None:
        if client.greeted:
            raise WireError("HELLO came twice")
        client.eager = bool(hello.flags & EAGER)
        client.guest = bool(hello.flags & GUEST)
        try:
            mailbox = client.open_mailbox()
            client.send(pack_welcome(Welcome(MAILBOX_SIZE)), (mailbox,))
        except OSError as error:
            client.fail(f"can't be welcomed: {error.strerror}")


def _come_before_the_busy() -> None:
    """Takes the least real-time priority, where that is allowed (root, RLIMIT_RTPRIO).

    Programs that answer each other over plain TCP keep an ordinary process from running for
    seconds on some kernels, however nice they are (docs/notes.md): the broker would not get to
    fuse the very connections that need it most. Threads made later inherit it, see sched(7);
    the broker starts no processes.
    """
    with contextlib.suppress(OSError):
        os.sched_setscheduler(
            0, os.SCHED_RR, os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
        )
