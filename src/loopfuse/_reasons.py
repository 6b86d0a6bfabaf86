"""Why a connection is not, or no longer, fused: numbers, codes, words.

The numbers are those of csrc/reasons.h, where they travel in segments and on the wire; a
test compares the two. A code is what `loopfuse ps` shows, the words are what it says below
its table and what the documentation says.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Reason(enum.IntEnum):
    """Twin of `enum lf_reason`. From 32 on, the connection had been fused; FIREWALL and
    POLICY also end a fused one."""

    NONE = 0
    NO_COUNTERPART = 1
    IO_OUTSIDE_LIBC = 2
    SHARED_DESCRIPTOR = 3
    DESCRIPTOR_PASSED = 4
    SOCKET_OPTION = 5
    EPOLL_KIND = 6
    FOREIGN_NETNS = 7
    NOT_VERIFIED = 8
    FOREIGN_USER = 9
    NO_DESCRIPTORS = 10
    NO_MEMORY = 11
    BAD_SEGMENT = 12
    STDIO = 13
    TOO_LATE = 14
    FIREWALL = 15
    POLICY = 16
    REQUEST = 32
    EXEC = 33
    URGENT_DATA = 34
    PEER_GONE = 35
    PEER_CLOSED = 36
    CORRUPT = 37
    DESCRIPTOR_NEEDED = 38

    @property
    def code(self) -> str:
        """The name a person sees, for example `io-outside-libc`."""
        return self.name.lower().replace("_", "-")


class Explanation(NamedTuple):
    """What a reason means, and what to do about it."""

    words: str
    what_to_do: str


EXPLANATIONS: dict[Reason, Explanation] = {
    Reason.NONE: Explanation(
        "Nothing stands against it; each direction leaves TCP with its next bytes.",
        "Wait for the next bytes.",
    ),
    Reason.NO_COUNTERPART: Explanation(
        "Only one end of the connection has asked to be fused.",
        "Start the other program with `loopfuse run` too; one that has made only a few "
        "calls on the connection has not asked yet.",
    ),
    Reason.IO_OUTSIDE_LIBC: Explanation(
        "The kernel counted bytes on this socket that did not pass through libc (raw system "
        "calls, a static helper), or the program uses io_uring for its sockets.",
        "If the program has a switch against io_uring, use it.",
    ),
    Reason.SHARED_DESCRIPTOR: Explanation(
        "Another process holds the same socket.",
        "Let all processes but one close it (close-on-exec, close after fork); it is tried "
        "again when only one is left.",
    ),
    Reason.DESCRIPTOR_PASSED: Explanation(
        "The socket was sent to another process (SCM_RIGHTS).",
        "Let the process that does the I/O accept or connect itself, if the program has a "
        "setting for that (SO_REUSEPORT, workers that accept).",
    ),
    Reason.SOCKET_OPTION: Explanation(
        "The program set an option that shared memory can't honour (kTLS, MSG_ZEROCOPY, "
        "timestamps, TCP_REPAIR, MD5, MPTCP).",
        "Turn the option off if it is not needed on this host (docs/semantics/options.md has "
        "all of them).",
    ),
    Reason.EPOLL_KIND: Explanation(
        "The socket is watched in a way that is only right on the kernel's own epoll "
        "(EPOLLEXCLUSIVE, an epoll in an epoll, a duplicated descriptor).",
        "Have the program's event loop use poll, or one plain epoll set, where it has a "
        "setting for that.",
    ),
    Reason.FOREIGN_NETNS: Explanation(
        "The socket is in a network namespace the broker can't look into.",
        "Run a broker inside that namespace, or the system broker as root.",
    ),
    Reason.NOT_VERIFIED: Explanation(
        "The kernel does not know the connection as it was claimed; mostly its other end "
        "is on another host, or address translation lies between.",
        "Connect to the address that the server itself listens at, on this host.",
    ),
    Reason.FOREIGN_USER: Explanation(
        "The two ends belong to different users, and the broker is not the system's.",
        "Let both programs use a broker that root runs (LOOPFUSE_BROKER).",
    ),
    Reason.FIREWALL: Explanation(
        "A rule of the packet filter, or traffic control on lo, looks at the payload of "
        "established connections, and this one is among those it concerns.",
        "Narrow the rule, or ignore its kind in a policy file (docs/policy.md).",
    ),
    Reason.POLICY: Explanation(
        "The broker's policy file denies it.",
        "Change the policy file (docs/policy.md), then send the broker SIGHUP.",
    ),
    Reason.NO_DESCRIPTORS: Explanation(
        "One of the programs or the broker is short of file descriptors.",
        "Raise the limit (`ulimit -n`).",
    ),
    Reason.NO_MEMORY: Explanation(
        "The shared memory could not be made or mapped, or a ring's next page could not be had.",
        "Free memory, raise the limit (`ulimit -v`), or use a smaller --ring-size.",
    ),
    Reason.BAD_SEGMENT: Explanation(
        "The library did not accept the segment that the broker sent.",
        "Use the library and the broker of the same loopfuse version.",
    ),
    Reason.STDIO: Explanation(
        "The program uses the socket as a FILE (fdopen).",
        "Have it read and write the descriptor itself; stdio reads past the library.",
    ),
    Reason.TOO_LATE: Explanation(
        "The connection is closing or shut down, or had been fused before.",
        "Connect anew, and keep the connection open: one that has gone back to TCP stays there.",
    ),
    Reason.REQUEST: Explanation(
        "Somebody asked for it with `loopfuse defuse`.",
        "Connect anew; this connection stays plain TCP.",
    ),
    Reason.EXEC: Explanation(
        "A program that inherits the socket was started in its place.",
        "Set close-on-exec on the socket, or let the new program connect itself.",
    ),
    Reason.URGENT_DATA: Explanation(
        "Urgent data was sent (MSG_OOB).",
        "Have the program send no urgent data, if it has a setting for that; then connect anew.",
    ),
    Reason.PEER_GONE: Explanation(
        "No process that loopfuse knows holds the other end any more.",
        "Start the other program again, and connect anew.",
    ),
    Reason.PEER_CLOSED: Explanation(
        "The other end has closed for reading.",
        "Connect anew, once the other program reads again.",
    ),
    Reason.CORRUPT: Explanation(
        "The other end wrote impossible positions into the shared memory; the connection "
        "was reset.",
        "Look for a program that overwrites its own memory; report it if there is none.",
    ),
    Reason.DESCRIPTOR_NEEDED: Explanation(
        "The program wanted the very descriptor number that loopfuse had hidden.",
        "Raise the limit on descriptors (`ulimit -n`), then connect anew.",
    ),
}


def code_of(number: int) -> str:
    """The code of a number out of a segment, where a peer may have written anything."""
    try:
        return Reason(number).code
    except ValueError:
        return f"unknown-{number}"
