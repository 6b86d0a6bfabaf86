"""One connection to the broker: a preloaded library, or the command line.

Nothing here waits. What does not fit into the socket is queued; whoever lets too much
gather, or sends what is not of the protocol, is marked as failed, and the broker's loop
lets go of it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from loopfuse._kernel import Credentials, command_name, peer_credentials, sealed_memfd, send_packet

MAILBOX_SIZE = 4096
QUEUE_LIMIT = 8192
_MEMORY_IS_SHORT = (errno.ENOBUFS, errno.ENOMEM)
_COUNT = struct.Struct("=I")


class _Queued(NamedTuple):
    data: bytes
    fds: tuple[int, ...]
    """Ours, closed when sent or dropped."""


class Client:
    """See the module. `changed` is called when the client begins or ceases to have a
    queue, and when it has failed."""

    def __init__(self, sock: socket.socket, changed: Callable[[Client], None]) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.fd = sock.fileno()
        self.credentials: Credentials = peer_credentials(sock)
        self.comm = command_name(self.credentials.pid)
        self.failure: str | None = None
        self.failure_kind: str | None = None
        """Under which the metrics count it, None: it did nothing wrong."""
        self.eager = False
        """Does it hold back its first bytes until it has an answer?"""
        self.guest = False
        """Will it come again, when it has something to claim?"""
        self.connections: set[int] = set()
        """Ids of the connections it has claimed an end of."""
        self._changed = changed
        self._mailbox = -1
        self._sent = 0
        self._queue: deque[_Queued] = deque()

    @property
    def has_queue(self) -> bool:
        return bool(self._queue)

    @property
    def greeted(self) -> bool:
        """Has it said HELLO?"""
        return self._mailbox >= 0

    def open_mailbox(self) -> int:
        """Makes the memory in which the client sees how many messages were sent to it;
        the descriptor stays the client's. Raises OSError."""
        self._mailbox = sealed_memfd("loopfuse-mailbox", MAILBOX_SIZE)
        return self._mailbox

    def fail(self, why: str, kind: str | None = None) -> None:
        """Marks the client as to be dropped."""
        if self.failure is None:
            self.failure = why
            self.failure_kind = kind
            self._changed(self)

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> bool:
        """Sends or queues one packet; `fds` stay the caller's. False: the client has
        failed, or just did. Raises OSError if descriptors can't be sent: there is no room for
        them in the broker (EMFILE) or on their way (ETOOMANYREFS, unix(7)), or no memory;
        nothing is sent then."""
        if self.failure is not None:
            return False
        if not self._queue:
            try:
                self._send_now(data, fds)
                return True
            except BlockingIOError:
                pass
            except (BrokenPipeError, ConnectionError) as error:
                self.fail(f"gone ({error.strerror})")
                return False
            except OSError:
                if fds:
                    raise  # without, it is queued: memory comes back
        return self._enqueue(data, fds)

    def _enqueue(self, data: bytes, fds: tuple[int, ...]) -> bool:
        if len(self._queue) >= QUEUE_LIMIT:
            self.fail(f"does not read: {QUEUE_LIMIT} messages are waiting", "slow-client")
            return False
        # Copies: a number in the queue could mean another file by the time it is sent.
        copies: list[int] = []
        try:
            for fd in fds:
                copies.append(os.dup(fd))
        except OSError:
            _close_all(copies)
            raise
        self._queue.append(_Queued(data, tuple(copies)))
        if len(self._queue) == 1:
            self._changed(self)
        return True

    def flush(self) -> None:
        """Sends what was queued, as far as there is room."""
        if self.failure is not None:
            return
        while self._queue:
            entry = self._queue[0]
            try:
                self._send_now(entry.data, entry.fds)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _MEMORY_IS_SHORT:
                    return
                self.fail(f"gone ({error.strerror})")
                return
            self._queue.popleft()
            _close_all(entry.fds)
        self._changed(self)

    def _send_now(self, data: bytes, fds: tuple[int, ...]) -> None:
        send_packet(self.socket, data, fds)
        # The count follows the message: whoever sees it finds the message.
        self._sent += 1
        if self._mailbox < 0:
            return
        try:
            os.pwrite(self._mailbox, _COUNT.pack(self._sent & 0xFFFFFFFF), 0)
        except OSError as error:
            # It has the message, but will not look; it sees that it was dropped.
            self.fail(f"has no mailbox ({error.strerror})")

    def close(self) -> None:
        """Gives back all that the client cost."""
        for entry in self._queue:
            _close_all(entry.fds)
        self._queue.clear()
        if self._mailbox >= 0:
            os.close(self._mailbox)
            self._mailbox = -1
        self.socket.close()

    def describe(self) -> str:
        """For the log."""
        pid, uid, _ = self.credentials
        return f"{self.comm or 'a process'} (pid {pid}, uid {uid})"


def _close_all(fds: list[int] | tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
