"""Every socket, IP and TCP option of Linux, and what it means for a fused connection.

The one source of docs/semantics/options.md and of the test that acts out each row.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import Enum

SOL_SOCKET, IP, IPV6, TCP = 1, 0, 41, 6


class Treatment(Enum):
    PASSED = "passed through"
    HONOURED = "honoured by the ring"
    PLAIN = "leads to plain TCP"


PASSED, HONOURED, PLAIN = Treatment

Value = int | bytes | str
"""An int, the option's bytes, or the name of something that a party makes: "@filter"."""


@dataclass(frozen=True)
class Option:
    level: int
    name: str
    number: int
    treatment: Treatment
    values: tuple[Value, ...]
    """What is set, one after the other; none: it is only asked for."""
    note: str
    size: int
    """Bytes to ask for."""
    varies: bool
    """Two runs, or two machines' moods, give different answers."""
    hosts: tuple[str, str]
    """Where the server listens, and where the client connects to."""
    tests: tuple[str, ...]
    """Further tests, by name."""

    def encoded(self) -> list[str]:
        """The values as a party takes them."""
        return [encode(value) for value in self.values]


def encode(value: Value) -> str:
    if isinstance(value, str):
        return value
    return (value if isinstance(value, bytes) else struct.pack("=I", value & 0xFFFFFFFF)).hex()


OPTIONS: list[Option] = []
_level, _hosts = SOL_SOCKET, ("127.0.0.1", "127.0.0.1")


def row(
    name: str,
    number: int,
    treatment: Treatment,
    *values: Value,
    note: str = "",
    size: int = 4,
    varies: bool = False,
    hosts: tuple[str, str] | None = None,
    tests: tuple[str, ...] = (),
) -> None:
    place = hosts or _hosts
    OPTIONS.append(
        Option(_level, name, number, treatment, values, note, size, varies, place, tests)
    )


TIMEVAL = struct.pack("qq", 5, 0)
ZEROS = bytes(256)
MEMBERSHIP = socket.inet_aton("224.0.0.251") + bytes(4) + struct.pack("i", 1)
SOURCE = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1") * 2
MEMBERSHIP6 = socket.inet_pton(socket.AF_INET6, "ff02::fb") + struct.pack("i", 1)
# struct tcp_md5sig, for a peer that is somebody else.
KEY = struct.pack("HH4s120xBBHi80s", 2, 0, socket.inet_aton("192.0.2.1"), 0, 0, 4, 0, b"word")


def lets_everything_out(family: int) -> bytes:
    """A struct xfrm_userpolicy_info."""
    selector, used = struct.pack("=40xH14x", family), bytes(32)
    return selector + b"\xff" * 32 + bytes(32) + used + struct.pack("=8xBBBB4x", 1, 0, 0, 0)


TO_THE_KERNEL = "of the handshake and of packets, which stay the kernel's"
TRANSPARENT = "a proxy's two sockets may look like each other's ends; 0 changes nothing"
DATAGRAMS = "has no effect on a stream"
RAW = "only for raw sockets"
LATER = "on a listener, at the accepted end, it can't be asked for: fused all the same"

# --- SOL_SOCKET, asm-generic/socket.h ---

row("SO_DEBUG", 1, PASSED, 1)
row("SO_REUSEADDR", 2, PASSED, 1)
row("SO_TYPE", 3, PASSED)
row(
    "SO_ERROR",
    4,
    HONOURED,
    note="also errors that plain TCP would have met; each is told once",
    tests=("test_so_error_tells_of_a_dead_peer_once",),
)
row("SO_DONTROUTE", 5, PASSED, 1)
row("SO_BROADCAST", 6, PASSED, 1, note=DATAGRAMS)
BOUNDS = ("test_buffer_sizes_bound_what_lies_unread",)
row("SO_SNDBUF", 7, HONOURED, 100_000, note="bounds what can lie unread", tests=BOUNDS)
row("SO_RCVBUF", 8, HONOURED, 100_000, note="the same, towards this end", tests=BOUNDS)
row(
    "SO_KEEPALIVE",
    9,
    PASSED,
    1,
    note="the kernels probe each other; a fused connection is idle to them, and alive",
)
row(
    "SO_OOBINLINE", 10, PLAIN, 1, note="urgent bytes need TCP's sequence numbers; 0 changes nothing"
)
row("SO_NO_CHECK", 11, PASSED, 1, note=DATAGRAMS)
row("SO_PRIORITY", 12, PASSED, 3, note=TO_THE_KERNEL)
row(
    "SO_LINGER",
    13,
    HONOURED,
    struct.pack("ii", 1, 1),
    size=8,
    note="time 0: close resets, and unread bytes are lost. Else close waits until the peer's "
    "kernel has the bytes; those in the ring are with the peer",
    tests=("linger0",),
)
row("SO_BSDCOMPAT", 14, PASSED, 1)
row("SO_REUSEPORT", 15, PASSED, 1)
row("SO_PASSCRED", 16, PASSED, 1, note="AF_UNIX")
row("SO_PEERCRED", 17, PASSED, size=12)
row(
    "SO_RCVLOWAT",
    18,
    HONOURED,
    1,
    note="for blocking receives and readiness; a receive of fewer bytes is woken by them, "
    "where TCP lets it sleep on",
    tests=("test_the_low_water_mark_holds_back_readiness",),
)
row("SO_SNDLOWAT", 19, PASSED, 1, note="can't be set on Linux")
row("SO_RCVTIMEO_OLD", 20, HONOURED, TIMEVAL, size=16, tests=("timeo", "test_a_timeout_is_kept"))
row("SO_SNDTIMEO_OLD", 21, HONOURED, TIMEVAL, size=16, tests=("timeo", "test_a_timeout_is_kept"))
row("SO_SECURITY_AUTHENTICATION", 22, PASSED, 1, note="not implemented")
row("SO_SECURITY_ENCRYPTION_TRANSPORT", 23, PASSED, 1, note="not implemented")
row("SO_SECURITY_ENCRYPTION_NETWORK", 24, PASSED, 1, note="not implemented")
row("SO_BINDTODEVICE", 25, PASSED, b"lo\0", size=16, note=TO_THE_KERNEL)
row(
    "SO_ATTACH_FILTER",
    26,
    PLAIN,
    "@filter",
    size=0,
    note="what the filter drops must not arrive",
)
row("SO_DETACH_FILTER", 27, PASSED, 0, note="the connection stays plain")
row("SO_PEERNAME", 28, PASSED, size=128, varies=True)
for name, number in (("SO_TIMESTAMP", 29), ("SO_TIMESTAMPNS", 35), ("SO_TIMESTAMPING", 37)):
    bits = 24 if name == "SO_TIMESTAMPING" else 1
    note = "ring bytes have no packets to stamp; 0 changes nothing"
    row(f"{name}_OLD", number, PLAIN, bits, note=note)
row("SO_ACCEPTCONN", 30, PASSED)
row("SO_PEERSEC", 31, PASSED, size=64, varies=True)
row("SO_SNDBUFFORCE", 32, HONOURED, 100_000, note="as SO_SNDBUF")
row("SO_RCVBUFFORCE", 33, HONOURED, 100_000, note="as SO_RCVBUF")
row("SO_PASSSEC", 34, PASSED, 1, note="AF_UNIX")
row("SO_MARK", 36, PASSED, 1, note=TO_THE_KERNEL)
row("SO_PROTOCOL", 38, PASSED)
row("SO_DOMAIN", 39, PASSED)
row("SO_RXQ_OVFL", 40, PASSED, 1, note=DATAGRAMS)
row("SO_WIFI_STATUS", 41, PASSED, 1, note=DATAGRAMS)
row(
    "SO_PEEK_OFF",
    42,
    PLAIN,
    0,
    note="the kernel keeps the offset; unread bytes come back to TCP first. -1 changes nothing",
    tests=("test_peek_offsets_count_bytes_that_lay_in_the_ring",),
)
row("SO_NOFCS", 43, PASSED, 1)
row("SO_LOCK_FILTER", 44, PASSED, 1)
row("SO_SELECT_ERR_QUEUE", 45, PASSED, 1)
row("SO_BUSY_POLL", 46, PASSED, 50, note="for network cards; the library spins by itself")
row("SO_MAX_PACING_RATE", 47, PLAIN, 10**9, note="~0 (no limit) changes nothing")
row("SO_BPF_EXTENSIONS", 48, PASSED, varies=True)
row("SO_INCOMING_CPU", 49, PASSED, 0, varies=True, note="the CPU of the last packet")
row("SO_ATTACH_BPF", 50, PLAIN, "@bpf", size=0, note="as SO_ATTACH_FILTER")
row("SO_ATTACH_REUSEPORT_CBPF", 51, PASSED, "@filter", note="chooses among listeners")
row("SO_ATTACH_REUSEPORT_EBPF", 52, PASSED, "@bpf", note="chooses among listeners")
row("SO_CNX_ADVICE", 53, PASSED, 1, note=TO_THE_KERNEL)
row("SO_MEMINFO", 55, PASSED, size=36, varies=True, note="the kernel's own memory only")
row("SO_INCOMING_NAPI_ID", 56, PASSED, varies=True)
row("SO_COOKIE", 57, PASSED, size=8, varies=True)
row("SO_PEERGROUPS", 59, PASSED, size=64, varies=True, note="AF_UNIX")
row(
    "SO_ZEROCOPY",
    60,
    PLAIN,
    1,
    note="completions of MSG_ZEROCOPY are the kernel's; 0 changes nothing",
)
row(
    "SO_TXTIME",
    61,
    PASSED,
    struct.pack("iI", 1, 0),
    size=8,
    note="a send with control data leads to plain TCP",
)
row("SO_BINDTOIFINDEX", 62, PASSED, 1, note=TO_THE_KERNEL)
for name, number in (("SO_TIMESTAMP", 63), ("SO_TIMESTAMPNS", 64), ("SO_TIMESTAMPING", 65)):
    bits = 24 if name == "SO_TIMESTAMPING" else 1
    row(f"{name}_NEW", number, PLAIN, bits, note=f"as {name}_OLD")
row(
    "SO_RCVTIMEO_NEW",
    66,
    HONOURED,
    TIMEVAL,
    size=16,
    note="as SO_RCVTIMEO_OLD",
    tests=("test_a_timeout_is_kept",),
)
row(
    "SO_SNDTIMEO_NEW",
    67,
    HONOURED,
    TIMEVAL,
    size=16,
    note="as SO_SNDTIMEO_OLD",
    tests=("test_a_timeout_is_kept",),
)
row("SO_DETACH_REUSEPORT_BPF", 68, PASSED, 0)
row("SO_PREFER_BUSY_POLL", 69, PASSED, 1)
row("SO_BUSY_POLL_BUDGET", 70, PASSED, 8)
row("SO_NETNS_COOKIE", 71, PASSED, size=8)
row(
    "SO_BUF_LOCK",
    72,
    HONOURED,
    3,
    note="the sizes it locks bound what can lie unread, 0 frees them",
    tests=("test_an_unlocked_buffer_no_longer_bounds_the_ring",),
)
row("SO_RESERVE_MEM", 73, PASSED, 4096)
row("SO_TXREHASH", 74, PASSED, 1, note=TO_THE_KERNEL)
row("SO_RCVMARK", 75, PASSED, 1, note=DATAGRAMS)
row("SO_PASSPIDFD", 76, PASSED, 1, note="AF_UNIX")
row("SO_PEERPIDFD", 77, PASSED, note="AF_UNIX")
row("SO_DEVMEM_LINEAR", 78, PASSED, 1, note="a kind of control message")
row("SO_DEVMEM_DMABUF", 79, PASSED, 1, note="a kind of control message")
row("SO_DEVMEM_DONTNEED", 80, PASSED, ZEROS[:8], note="for network cards")
row("SO_RCVPRIORITY", 82, PASSED, 1, note=DATAGRAMS)
row("SO_PASSRIGHTS", 83, PASSED, 1, note="AF_UNIX")
row("SO_INQ", 84, PASSED, 1, note="AF_UNIX")

# --- IPPROTO_IP, linux/in.h ---

_level = IP
row("IP_TOS", 1, PASSED, 0x10, note=TO_THE_KERNEL)
row("IP_TTL", 2, PASSED, 64, note=TO_THE_KERNEL)
row("IP_HDRINCL", 3, PASSED, 1, note=RAW)
row("IP_OPTIONS", 4, PASSED, b"\1\1\1\0", size=40, note=TO_THE_KERNEL)
row("IP_ROUTER_ALERT", 5, PASSED, 1, note=RAW)
row("IP_RECVOPTS", 6, PASSED, 1, note=DATAGRAMS)
row("IP_RETOPTS", 7, PASSED, 1, note=DATAGRAMS)
row("IP_PKTINFO", 8, PASSED, 1, note=DATAGRAMS)
row("IP_PKTOPTIONS", 9, PASSED, size=128, varies=True, note="of the last packet")
row("IP_MTU_DISCOVER", 10, PASSED, 0, note=TO_THE_KERNEL)
row(
    "IP_RECVERR",
    11,
    PASSED,
    1,
    note="MSG_ERRQUEUE is the kernel's",
    tests=("test_the_error_queue_is_the_kernels",),
)
row("IP_RECVTTL", 12, PASSED, 1, note=DATAGRAMS)
row("IP_RECVTOS", 13, PASSED, 1, note=DATAGRAMS)
row("IP_MTU", 14, PASSED)
row("IP_FREEBIND", 15, PASSED, 1)
POLICY = "what a policy blocks must not arrive; " + LATER
row("IP_IPSEC_POLICY", 16, PLAIN, ZEROS[:168], note=POLICY)
row("IP_XFRM_POLICY", 17, PLAIN, lets_everything_out(socket.AF_INET), note=POLICY)
row("IP_PASSSEC", 18, PASSED, 1, note=DATAGRAMS)
row("IP_TRANSPARENT", 19, PLAIN, 1, note=TRANSPARENT)
row("IP_ORIGDSTADDR", 20, PASSED, 1, note=DATAGRAMS)
row("IP_MINTTL", 21, PLAIN, 1, note="what the kernel drops must not arrive; 0 changes nothing")
row("IP_NODEFRAG", 22, PASSED, 1, note=RAW)
row("IP_CHECKSUM", 23, PASSED, 1, note=DATAGRAMS)
row("IP_BIND_ADDRESS_NO_PORT", 24, PASSED, 1)
row("IP_RECVFRAGSIZE", 25, PASSED, 1, note=DATAGRAMS)
row("IP_RECVERR_RFC4884", 26, PASSED, 1, note=DATAGRAMS)
row("IP_MULTICAST_IF", 32, PASSED, socket.inet_aton("127.0.0.1"), note=DATAGRAMS)
row("IP_MULTICAST_TTL", 33, PASSED, 1, note=DATAGRAMS)
row("IP_MULTICAST_LOOP", 34, PASSED, 1, note=DATAGRAMS)
row("IP_ADD_MEMBERSHIP", 35, PASSED, MEMBERSHIP, note=DATAGRAMS)
row("IP_DROP_MEMBERSHIP", 36, PASSED, MEMBERSHIP, note=DATAGRAMS)
row("IP_UNBLOCK_SOURCE", 37, PASSED, SOURCE, note=DATAGRAMS)
row("IP_BLOCK_SOURCE", 38, PASSED, SOURCE, note=DATAGRAMS)
row("IP_ADD_SOURCE_MEMBERSHIP", 39, PASSED, SOURCE, note=DATAGRAMS)
row("IP_DROP_SOURCE_MEMBERSHIP", 40, PASSED, SOURCE, note=DATAGRAMS)
row("IP_MSFILTER", 41, PASSED, ZEROS[:16], size=16, note=DATAGRAMS)
for name, number in (
    *(("MCAST_JOIN_GROUP", 42), ("MCAST_BLOCK_SOURCE", 43), ("MCAST_UNBLOCK_SOURCE", 44)),
    *(("MCAST_LEAVE_GROUP", 45), ("MCAST_JOIN_SOURCE_GROUP", 46)),
    *(("MCAST_LEAVE_SOURCE_GROUP", 47), ("MCAST_MSFILTER", 48)),
):
    row(name, number, PASSED, ZEROS[:136], size=136, note=DATAGRAMS)
row("IP_MULTICAST_ALL", 49, PASSED, 1, note=DATAGRAMS)
row("IP_UNICAST_IF", 50, PASSED, struct.pack(">I", 1))
row("IP_LOCAL_PORT_RANGE", 51, PASSED, 40_000 | 50_000 << 16)
row("IP_PROTOCOL", 52, PASSED, varies=True)

# --- IPPROTO_IPV6, linux/in6.h ---

_level, _hosts = IPV6, ("::1", "::1")
row(
    "IPV6_ADDRFORM",
    1,
    PASSED,
    socket.AF_INET,
    hosts=("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
    note="an IPv4-mapped socket becomes an IPv4 one, and stays fused",
)
row("IPV6_2292PKTINFO", 2, PASSED, 1, note=DATAGRAMS)
row("IPV6_2292HOPOPTS", 3, PASSED, 1, note=DATAGRAMS)
row("IPV6_2292DSTOPTS", 4, PASSED, 1, note=DATAGRAMS)
row("IPV6_2292RTHDR", 5, PASSED, 1, note=DATAGRAMS)
row("IPV6_2292PKTOPTIONS", 6, PASSED, ZEROS[:16], size=128, varies=True, note="of the last packet")
row("IPV6_CHECKSUM", 7, PASSED, 2, note=RAW)
row("IPV6_2292HOPLIMIT", 8, PASSED, 1, note=DATAGRAMS)
row("IPV6_NEXTHOP", 9, PASSED, ZEROS[:28], note=TO_THE_KERNEL)
row("IPV6_AUTHHDR", 10, PASSED, 1, note="not implemented")
row("IPV6_FLOWINFO", 11, PASSED, 1, note=DATAGRAMS)
row("IPV6_UNICAST_HOPS", 16, PASSED, 64, note=TO_THE_KERNEL)
row("IPV6_MULTICAST_IF", 17, PASSED, 1, note=DATAGRAMS)
row("IPV6_MULTICAST_HOPS", 18, PASSED, 1, note=DATAGRAMS)
row("IPV6_MULTICAST_LOOP", 19, PASSED, 1, note=DATAGRAMS)
row("IPV6_ADD_MEMBERSHIP", 20, PASSED, MEMBERSHIP6, note=DATAGRAMS)
row("IPV6_DROP_MEMBERSHIP", 21, PASSED, MEMBERSHIP6, note=DATAGRAMS)
row("IPV6_ROUTER_ALERT", 22, PASSED, 1, note=RAW)
row("IPV6_MTU_DISCOVER", 23, PASSED, 0, note=TO_THE_KERNEL)
row("IPV6_MTU", 24, PASSED, 1500, note=TO_THE_KERNEL)
row("IPV6_RECVERR", 25, PASSED, 1, note="MSG_ERRQUEUE is the kernel's")
row("IPV6_V6ONLY", 26, PASSED, 1)
row("IPV6_JOIN_ANYCAST", 27, PASSED, MEMBERSHIP6, note=DATAGRAMS)
row("IPV6_LEAVE_ANYCAST", 28, PASSED, MEMBERSHIP6, note=DATAGRAMS)
row("IPV6_MULTICAST_ALL", 29, PASSED, 1, note=DATAGRAMS)
row("IPV6_ROUTER_ALERT_ISOLATE", 30, PASSED, 1, note=RAW)
row("IPV6_RECVERR_RFC4884", 31, PASSED, 1, note=DATAGRAMS)
row("IPV6_FLOWLABEL_MGR", 32, PASSED, ZEROS[:32], size=32, note=TO_THE_KERNEL)
row("IPV6_FLOWINFO_SEND", 33, PASSED, 1, note=TO_THE_KERNEL)
row("IPV6_IPSEC_POLICY", 34, PLAIN, ZEROS[:168], note=POLICY)
row("IPV6_XFRM_POLICY", 35, PLAIN, lets_everything_out(socket.AF_INET6), note=POLICY)
row("IPV6_HDRINCL", 36, PASSED, 1, note=RAW)
row("IPV6_RECVPKTINFO", 49, PASSED, 1, note=DATAGRAMS)
row("IPV6_PKTINFO", 50, PASSED, ZEROS[:20], size=20, note=TO_THE_KERNEL)
row("IPV6_RECVHOPLIMIT", 51, PASSED, 1, note=DATAGRAMS)
row("IPV6_HOPLIMIT", 52, PASSED, 64, note=TO_THE_KERNEL)
row("IPV6_RECVHOPOPTS", 53, PASSED, 1, note=DATAGRAMS)
row("IPV6_HOPOPTS", 54, PASSED, b"", size=64, note=TO_THE_KERNEL)
row("IPV6_RTHDRDSTOPTS", 55, PASSED, b"", size=64, note=TO_THE_KERNEL)
row("IPV6_RECVRTHDR", 56, PASSED, 1, note=DATAGRAMS)
row("IPV6_RTHDR", 57, PASSED, b"", size=64, note=TO_THE_KERNEL)
row("IPV6_RECVDSTOPTS", 58, PASSED, 1, note=DATAGRAMS)
row("IPV6_DSTOPTS", 59, PASSED, b"", size=64, note=TO_THE_KERNEL)
row("IPV6_RECVPATHMTU", 60, PASSED, 1, note=DATAGRAMS)
row("IPV6_PATHMTU", 61, PASSED, size=32, note=TO_THE_KERNEL)
row("IPV6_DONTFRAG", 62, PASSED, 1, note=TO_THE_KERNEL)
row("IPV6_USE_MIN_MTU", 63, PASSED, 1, note=TO_THE_KERNEL)
row("IPV6_RECVTCLASS", 66, PASSED, 1, note=DATAGRAMS)
row("IPV6_TCLASS", 67, PASSED, 0x10, note=TO_THE_KERNEL)
row("IPV6_AUTOFLOWLABEL", 70, PASSED, 1, note=TO_THE_KERNEL)
row("IPV6_ADDR_PREFERENCES", 72, PASSED, 2, note=TO_THE_KERNEL)
row("IPV6_MINHOPCOUNT", 73, PLAIN, 1, note="as IP_MINTTL")
row("IPV6_ORIGDSTADDR", 74, PASSED, 1, note=DATAGRAMS)
row("IPV6_TRANSPARENT", 75, PLAIN, 1, note=TRANSPARENT)
row("IPV6_UNICAST_IF", 76, PASSED, struct.pack(">I", 1))
row("IPV6_RECVFRAGSIZE", 77, PASSED, 1, note=DATAGRAMS)
row("IPV6_FREEBIND", 78, PASSED, 1)

# --- IPPROTO_TCP, linux/tcp.h ---

_level, _hosts = TCP, ("127.0.0.1", "127.0.0.1")
row(
    "TCP_NODELAY", 1, PASSED, 1,
    note="ring bytes are delayed by a cork only, and setting this lets go of them",
    tests=("test_what_pushes_them",),
)  # fmt: skip
row("TCP_MAXSEG", 2, PASSED, 1000, varies=True, note=TO_THE_KERNEL)
row(
    "TCP_CORK", 3, HONOURED, 1, 0,
    note="as `MSG_MORE`: seen once it is out, or 65,483 bytes are there, or after 200 ms",
    tests=("test_who_waits_is_told_of_them_together", "test_they_do_not_wait_for_ever"),
)  # fmt: skip
row("TCP_KEEPIDLE", 4, PASSED, 100)
row("TCP_KEEPINTVL", 5, PASSED, 10)
row("TCP_KEEPCNT", 6, PASSED, 3)
row("TCP_SYNCNT", 7, PASSED, 3, note=TO_THE_KERNEL)
row("TCP_LINGER2", 8, PASSED, 5, note="of FIN-WAIT-2, which stays the kernel's")
row(
    "TCP_DEFER_ACCEPT", 9, PASSED, 1, 0,
    note="with `--eager` the client's first bytes wait for the server's end, which waits for "
    "them: a second lost (docs/not-fused.md)",
)  # fmt: skip
row(
    "TCP_WINDOW_CLAMP", 10, PASSED, 40_000, varies=True,
    note="bounds the kernel's window only; SO_RCVBUF bounds the ring",
)  # fmt: skip
row(
    "TCP_INFO", 11, HONOURED, size=232, varies=True,
    note="`tcpi_bytes_sent`, `_acked`, `_received` and `tcpi_notsent_bytes` count ring bytes; "
    "segments, times and rates are the kernel's own",
    tests=("test_tcp_info_counts_ring_bytes",),
)  # fmt: skip
row("TCP_QUICKACK", 12, PASSED, 0, note=TO_THE_KERNEL, varies=True)
row("TCP_CONGESTION", 13, PASSED, b"reno", size=16, note=TO_THE_KERNEL)
row("TCP_MD5SIG", 14, PLAIN, KEY, note=LATER)
row("TCP_THIN_LINEAR_TIMEOUTS", 16, PASSED, 1, note=TO_THE_KERNEL)
row("TCP_THIN_DUPACK", 17, PASSED, 1, note=TO_THE_KERNEL)
row(
    "TCP_USER_TIMEOUT", 18, HONOURED, 30_000,
    note="bytes that the peer's receive buffer would not hold go by TCP from then on, whose "
    "timer then ends the connection (ETIMEDOUT) if nobody reads",
    tests=("test_a_user_timeout_ends_a_connection_that_nobody_reads",),
)  # fmt: skip
row("TCP_REPAIR", 19, PLAIN, 1, 0, note="also if it is cleared again")
row("TCP_REPAIR_QUEUE", 20, PASSED, 1, note="only under TCP_REPAIR")
row("TCP_QUEUE_SEQ", 21, PASSED, 1, varies=True, note="only under TCP_REPAIR")
row("TCP_REPAIR_OPTIONS", 22, PASSED, ZEROS[:8], note="only under TCP_REPAIR")
row(
    "TCP_FASTOPEN", 23, PASSED, 5,
    note="a client that sends with MSG_FASTOPEN instead of `connect` stays on plain TCP",
    tests=("test_fast_open_loses_nothing",),
)  # fmt: skip
row("TCP_TIMESTAMP", 24, PASSED, 1, varies=True, note="the kernel's packets' clock")
row(
    "TCP_NOTSENT_LOWAT", 25, HONOURED, 20_000,
    note="so much can lie unread beyond what the peer's receive buffer would hold",
    tests=("test_the_unsent_low_water_mark_bounds_what_lies_unread",),
)  # fmt: skip
row("TCP_CC_INFO", 26, PASSED, size=64, varies=True)
row("TCP_SAVE_SYN", 27, PASSED, 1)
row("TCP_SAVED_SYN", 28, PASSED, size=128, varies=True)
row("TCP_REPAIR_WINDOW", 29, PASSED, ZEROS[:20], size=20, note="only under TCP_REPAIR")
row("TCP_FASTOPEN_CONNECT", 30, PASSED, 1, tests=("test_fast_open_loses_nothing",))
row(
    "TCP_ULP", 31, PLAIN, b"tls", size=16,
    note="kTLS works on TCP's bytes: unread ones come back to TCP first",
)  # fmt: skip
row("TCP_MD5SIG_EXT", 32, PLAIN, KEY, note=LATER)
row("TCP_FASTOPEN_KEY", 33, PASSED, ZEROS[:16], size=16, note=TO_THE_KERNEL, varies=True)
row("TCP_FASTOPEN_NO_COOKIE", 34, PASSED, 1, note=TO_THE_KERNEL)
row(
    "TCP_ZEROCOPY_RECEIVE", 35, PLAIN, size=24, varies=True,
    note="a receive: unread bytes come back to TCP first",
    tests=("test_zero_copy_receives_find_the_bytes",),
)  # fmt: skip
row(
    "TCP_INQ",
    36,
    HONOURED,
    1,
    note="counts the ring's bytes, too",
    tests=("test_received_bytes_tell_how_many_are_left",),
)
row("TCP_TX_DELAY", 37, PLAIN, 100, note="delays packets; 0 changes nothing")
row("TCP_AO_ADD_KEY", 38, PLAIN, ZEROS, note="authenticates packets")
row("TCP_AO_DEL_KEY", 39, PASSED, ZEROS[:160], note="the connection stays plain")
row("TCP_AO_INFO", 40, PASSED, ZEROS[:64], size=64)
row("TCP_AO_GET_KEYS", 41, PASSED, size=256)
row("TCP_AO_REPAIR", 42, PASSED, ZEROS[:64], note="only under TCP_REPAIR")
row("TCP_IS_MPTCP", 43, PASSED, note="MPTCP sockets themselves stay as they are")
row("TCP_RTO_MAX_MS", 44, PASSED, 60_000, note=TO_THE_KERNEL)
row("TCP_RTO_MIN_US", 45, PASSED, 200_000, note=TO_THE_KERNEL)
row("TCP_DELACK_MAX_US", 46, PASSED, 20_000, note=TO_THE_KERNEL)
