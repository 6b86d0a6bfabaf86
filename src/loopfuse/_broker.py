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
from loopfuse._broker_state.firewall import Firewall
from loopfuse._broker_state.ledger import Ledger
from loopfuse._broker_state.listening import Listening
from loopfuse._broker_state.log import Log
from loopfuse._broker_state.pairing import Pairing
from loopfuse._broker_state.permission import Permission
from loopfuse._broker_state.requests import Requests
from loopfuse._broker_state.sweep import Sweep
from loopfuse._broker_state.verify import Verifier
from loopfuse._errors import PolicyError, WireError
from loopfuse._kernel import raise_descriptor_limit
from loopfuse._policy import EVERYTHING, Policy
from loopfuse._policy_file import read_policy
from loopfuse._segments import RING_DEFAULT, check_ring_size
from loopfuse._wire import EAGER, Claim, Closed, Hello, Welcome, pack_welcome, parse_from_library

IDLE_EXIT_DEFAULT = 30.0
_PACKETS_A_TURN = 64
_LARGEST_PACKET = 65536
_MOST_CLIENTS = 16384


class Options(NamedTuple):
    """How a broker is to run."""

    idle_exit: float = IDLE_EXIT_DEFAULT
    """Leaves after so many seconds without a client and without a pair; 0: never."""
    ring_size: int = RING_DEFAULT
    """Bytes of each direction's ring, a power of two."""
    log_level: str = "warning"
    policy: Policy = EVERYTHING


class Broker:
    """Serves one listening socket until it is idle or told to stop. Takes over the process's
    signals as soon as it is made: who sees it listen may tell it to stop."""

    _listening: Listening

    def __init__(self, options: Options) -> None:
        check_ring_size(options.ring_size)
        self._options = options
        self._log = Log(options.log_level)
        self._most_clients = min(_MOST_CLIENTS, raise_descriptor_limit() // 4)
        self._ledger = Ledger()
        self._firewall = Firewall()
        self._verifier = Verifier(self._firewall)
        budget = Budget(options.ring_size)
        self._permission = Permission(
            options.policy, self._firewall, self._verifier.home, self._log
        )
        self._pairing = Pairing(self._ledger, self._verifier, self._permission, budget, self._log)
        self._sweep = Sweep(self._ledger, self._verifier, budget)
        self._requests = Requests(self._ledger, self._pairing, self._permission, __version__)
        self._clients: dict[int, Client] = {}
        self._failed: list[Client] = []
        self._busy_at = time.monotonic()
        self._stopping = False
        self._rereads_policy = False
        self._epoll = select.epoll()
        self._epoll.register(self._firewall, select.EPOLLIN)
        # Given up for a moment when descriptors run out, so that a caller can be
        # accepted and hung up on, instead of being announced for ever.
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._waker, self._wake = socket.socketpair()
        self._take_signals()

    def _take_signals(self) -> None:
        self._waker.setblocking(False)
        self._wake.setblocking(False)
        self._epoll.register(self._waker, select.EPOLLIN)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._reread_policy)

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
                    elif fd != self._firewall.fileno():
                        self._serve(fd, events)
                self._heed_rules()
                self._pairing.prospects.run()
                self._sweep.run()
                self._reap()
        finally:
            self._close()

    def _stop(self, _number: int, _frame: object) -> None:
        self._stopping = True

    def _reread_policy(self, _number: int, _frame: object) -> None:
        self._rereads_policy = True

    def _heed_rules(self) -> None:
        """Has connections defused for which the policy or a packet filter has changed."""
        changed = self._firewall.run()
        if self._rereads_policy:
            self._rereads_policy = False
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
            self._log.error(f"{error}; the policy that was read before still holds")
        else:
            self._log.info(f"policy: {self._permission.policy.describe()}")

    def _close(self) -> None:
        self._log.info("leaving")
        signal.set_wakeup_fd(-1)
        self._waker.close()
        self._wake.close()
        self._listening.close()
        for client in self._clients.values():
            client.close()
        self._ledger.release()
        self._verifier.close()
        self._firewall.close()
        self._epoll.close()
        os.close(self._reserve)

    # -- time -----------------------------------------------------------------------

    def _idle_for_long(self) -> bool:
        if self._clients or self._ledger.pairs:
            self._busy_at = time.monotonic()
        limit = self._options.idle_exit
        return limit > 0 and time.monotonic() - self._busy_at >= limit

    def _timeout(self) -> float:
        """Seconds for epoll_wait, -1: for ever."""
        now = time.monotonic()
        busy = len(self._ledger) > 0
        due = (
            self._sweep.due(),
            self._pairing.prospects.due(),
            self._firewall.due(busy=busy),
        )
        times = [moment for moment in due if moment is not None]
        if self._options.idle_exit > 0 and not self._clients and not self._ledger.pairs:
            times.append(self._busy_at + self._options.idle_exit)
        return max(0.0, min(times) - now) if times else -1

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
                self._log.warning(f"turned a client away: there are {len(self._clients)}")
                sock.close()
                continue
            client = Client(sock, self._client_changed)
            self._clients[client.fd] = client
            self._epoll.register(client.fd, select.EPOLLIN)

    def _turn_away(self) -> None:
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
            self._log.info(f"dropped {client.describe()}: {client.failure}")
            del self._clients[client.fd]
            self._sweep.hint(self._pairing.on_client_gone(client))
            client.close()
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
                client.fail("hung up")
                return
            try:
                self._take(client, packet)
            except WireError as error:
                self._log.warning(f"{client.describe()} broke the protocol: {error}")
                client.fail("broke the protocol")

    def _take(self, client: Client, packet: bytes) -> None:
        if packet[0] == 0x7B:  # '{'
            self._requests.answer(client, packet, len(self._clients))
            return
        message = parse_from_library(packet)
        if isinstance(message, Claim):
            if not client.greeted:
                raise WireError("a claim came before HELLO")
            if message.declined:
                self._pairing.on_decline(client, message)
            else:
                self._pairing.on_claim(client, message)
        elif isinstance(message, Closed):
            self._sweep.hint([message.pair_id])
        else:
            self._welcome(client, message)

    def _welcome(self, client: Client, hello: Hello) -> None:
        if client.greeted:
            raise WireError("HELLO came twice")
        client.eager = bool(hello.flags & EAGER)
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
