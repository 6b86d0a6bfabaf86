"""Programs for two parties, as hypothesis makes them up.

A program is made without a look at what it does: the director leaves out a step that
makes no sense where it stands. So any part of a program is a program, and shrinking works.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from differential.readiness import EPOLL_WAYS, WAYS
from differential.transfer import RECEIVES, SENDS

Step = dict[str, Any]
Steps = st.SearchStrategy[Step]


@dataclass(frozen=True)
class Program:
    mode: str
    """The pairing policy of the fused run."""
    family: str
    blocking_connect: bool
    early: int
    """Bytes that the client sends before it is accepted."""
    before: list[Step]
    """Options of the client's socket before connect, and of the listener."""
    pairing: str
    pair_at: int
    """Before this step the parties do what makes lazy pairing happen."""
    defuse_at: int | None
    """Before this step the broker is told to defuse."""
    steps: list[Step]

    def without(self, do: str) -> Program:
        return replace(self, steps=[step for step in self.steps if step["do"] != do])


_SIZES = st.one_of(
    st.integers(0, 40), st.integers(0, 40), st.sampled_from([100, 1000, 4095, 4096, 5000, 9000])
)
_HANDLES = st.sampled_from([0, 0, 0, 0, 1, 2])
_TIMEOUTS = st.sampled_from([0, 0, 0, 30, -1])


def _flags(*names: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), max_size=2, unique=True).map(sorted)


def _step(do: str, **fields: st.SearchStrategy[Any]) -> Steps:
    return st.fixed_dictionaries({"do": st.just(do), "handle": _HANDLES, **fields})


def _int(value: int) -> str:
    return struct.pack("i", value).hex()


_OPTIONS = [
    ("SOL_SOCKET", "SO_RCVLOWAT", _int(1)),
    ("SOL_SOCKET", "SO_RCVLOWAT", _int(5)),
    ("SOL_SOCKET", "SO_RCVLOWAT", _int(2000)),
    ("SOL_SOCKET", "SO_RCVTIMEO", struct.pack("ll", 0, 60000).hex()),
    ("SOL_SOCKET", "SO_RCVTIMEO", struct.pack("ll", 0, 0).hex()),
    ("SOL_SOCKET", "SO_SNDTIMEO", struct.pack("ll", 0, 60000).hex()),
    ("SOL_SOCKET", "SO_LINGER", struct.pack("ii", 1, 0).hex()),
    ("SOL_SOCKET", "SO_LINGER", struct.pack("ii", 1, 1).hex()),
    ("SOL_SOCKET", "SO_KEEPALIVE", _int(1)),
    ("SOL_SOCKET", "SO_OOBINLINE", _int(1)),
    ("SOL_SOCKET", "SO_RCVBUF", _int(65536)),
    ("SOL_SOCKET", "SO_RCVBUF", _int(1)),
    ("SOL_SOCKET", "SO_SNDBUF", _int(65536)),
    ("SOL_SOCKET", "SO_TIMESTAMP", _int(1)),
    ("SOL_SOCKET", "SO_BUSY_POLL", _int(0)),
    ("IPPROTO_TCP", "TCP_NODELAY", _int(0)),
    ("IPPROTO_TCP", "TCP_NODELAY", _int(1)),
    ("IPPROTO_TCP", "TCP_CORK", _int(1)),
    ("IPPROTO_TCP", "TCP_CORK", _int(0)),
    ("IPPROTO_TCP", "TCP_QUICKACK", _int(0)),
    ("IPPROTO_TCP", "TCP_MAXSEG", _int(1)),
]

_QUESTIONS = [
    *("SO_ERROR", "FIONREAD", "SIOCATMARK", "SIOCOUTQ", "state", "F_GETFL", "getpeername"),
    *("SO_RCVLOWAT", "SO_OOBINLINE", "SO_ACCEPTCONN"),
]

_WITHOUT_FLAGS = {"read", "readv", "preadv2", "write", "writev", "pwritev2", "sendfile"}


def _that_count(step: Step) -> Step:
    """Without the flags that its call does not take."""
    flags = step["flags"]
    if step["how"] in _WITHOUT_FLAGS:
        flags = []
    elif step["how"] == "splice":
        flags = [flag for flag in flags if flag == "MSG_DONTWAIT"]
    return step | {"flags": flags}


_SEND = _step(
    "send",
    how=st.sampled_from(SENDS),
    size=_SIZES,
    flags=st.one_of(
        st.just([]),
        _flags("MSG_DONTWAIT", "MSG_NOSIGNAL", "MSG_EOR"),
        _flags("MSG_DONTWAIT", "MSG_NOSIGNAL"),
        st.sampled_from([["MSG_OOB"], ["MSG_MORE"], []]),
    ),
).map(_that_count)
_SEND_MUCH = _step(
    "send",
    how=st.sampled_from(["send", "writev", "sendmsg", "sendfile", "write"]),
    # The greatest is more than any buffer takes; the others find room in every one.
    size=st.sampled_from([100_000, 500_000, 1 << 20, 16 << 20]),
    flags=st.just([]),
)
_RECEIVE = _step(
    "receive",
    how=st.sampled_from(RECEIVES),
    size=st.one_of(_SIZES, _SIZES, _SIZES, st.sampled_from([100_000, 8 << 20])),
    flags=st.one_of(
        st.just([]),
        st.just(["MSG_DONTWAIT"]),
        _flags("MSG_DONTWAIT", "MSG_PEEK", "MSG_WAITALL", "MSG_TRUNC"),
        _flags("MSG_PEEK", "MSG_WAITALL", "MSG_TRUNC", "MSG_OOB", "MSG_CMSG_CLOEXEC"),
        st.sampled_from([["MSG_OOB"], ["MSG_ERRQUEUE"], ["MSG_WAITFORONE"]]),
    ),
).map(_that_count)
_POLL = _step(
    "poll",
    how=st.sampled_from(WAYS),
    events=st.sampled_from(
        [
            ["EPOLLIN", "EPOLLOUT", "EPOLLPRI", "EPOLLRDHUP"],
            ["EPOLLIN"],
            ["EPOLLIN", "EPOLLRDHUP"],
            ["EPOLLOUT"],
            ["EPOLLRDNORM", "EPOLLWRNORM", "EPOLLRDBAND", "EPOLLWRBAND"],
            [],
        ]
    ),
    timeout=_TIMEOUTS,
)
_EPOLL_CTL = _step(
    "epoll ctl",
    set=st.sampled_from([0, 0, 0, 1]),
    how=st.sampled_from(["add", "add", "mod", "mod", "del"]),
    events=st.lists(
        st.sampled_from(
            [
                "EPOLLIN",
                "EPOLLIN",
                "EPOLLOUT",
                "EPOLLET",
                "EPOLLONESHOT",
                "EPOLLRDHUP",
                "EPOLLPRI",
                "EPOLLEXCLUSIVE",
            ]
        ),
        max_size=4,
        unique=True,
    ).map(sorted),
    nested=st.sampled_from([False] * 9 + [True]),
)
_EPOLL_WAIT = st.fixed_dictionaries(
    {
        "do": st.just("epoll wait"),
        "how": st.sampled_from(EPOLL_WAYS),
        "set": st.sampled_from([0, 0, 0, 1]),
        "timeout": _TIMEOUTS,
        "levels": st.just(False),
    }
)
_READINESS = st.one_of(_POLL, _EPOLL_CTL, _EPOLL_WAIT, _EPOLL_WAIT)
_OPTION = st.sampled_from(_OPTIONS).flatmap(
    lambda option: _step(
        "set option",
        level=st.just(option[0]),
        name=st.just(option[1]),
        value=st.just(option[2]),
    )
)
_NONBLOCKING = _step("nonblocking", how=st.sampled_from(["fcntl", "ioctl"]), on=st.booleans())
_ASK = _step("ask", what=st.sampled_from(_QUESTIONS))
_DRAIN = _step("drain")
_FILL = _step("fill")
_SHUTDOWN = _step("shutdown", how=st.sampled_from(["SHUT_WR", "SHUT_WR", "SHUT_RD", "SHUT_RDWR"]))
_CLOSE = _step("close")
_COPY = _step("copy", how=st.sampled_from(["dup", "dup2", "F_DUPFD"]))
_KILL = _step("kill")
_RARE_ENDS = st.one_of(
    _step("cover"), _step("reconnect", how=st.sampled_from(["AF_UNSPEC", "AF_INET"])), _KILL
)
_SIGNAL = st.fixed_dictionaries({"do": st.just("signal"), "restart": st.booleans()})
_PROCESSES = st.one_of(
    st.fixed_dictionaries({"do": st.just("fork")}),
    st.fixed_dictionaries({"do": st.just("fork")}),
    st.fixed_dictionaries({"do": st.just("end child"), "how": st.sampled_from(["exit", "kill"])}),
    _step("pass"),
    _step("exec reader", size=st.integers(1, 5000)),
    _step("exec writer", size=st.integers(1, 5000)),
)

_ANY_STEP = st.one_of(
    *[_SEND] * 5,
    *[_RECEIVE] * 6,
    *[_READINESS] * 5,
    *[_OPTION] * 2,
    *[_ASK] * 2,
    *[_DRAIN] * 2,
    _NONBLOCKING,
    _SEND_MUCH,
    _FILL,
    _SHUTDOWN,
    _CLOSE,
    _COPY,
    _SIGNAL,
    _PROCESSES,
    _RARE_ENDS,
)

# A socket that goes, or has gone, at either end.
_MOVING_STEP = st.one_of(
    *[_SEND] * 6,
    *[_RECEIVE] * 3,
    *[_PROCESSES] * 4,
    *[_SHUTDOWN] * 3,
    *[_CLOSE] * 2,
    _ASK,
    _DRAIN,
    _COPY,
    *[_KILL] * 2,
    _RARE_ENDS,
    _READINESS,
)


def _by(step: Step, side: str, child: bool) -> Step:
    return {"by": side, "child": child, **step}


def _somebodys(step: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    sides = st.sampled_from(["client", "server"])
    return st.builds(_by, step, sides, st.sampled_from([False, False, False, True]))


_STEP, _MOVE = _somebodys(_ANY_STEP), _somebodys(_MOVING_STEP)
# Left alone, hypothesis makes most lists short; few of those get anywhere.
_STEPS = st.one_of(
    st.lists(_STEP, min_size=1, max_size=30),
    st.lists(_STEP, min_size=12, max_size=30),
    st.lists(_STEP, min_size=12, max_size=30),
    st.lists(_MOVE, min_size=6, max_size=20),
)

_BEFORE = st.builds(_by, _OPTION, st.sampled_from(["client", "server"]), st.just(False))

programs: st.SearchStrategy[Program] = st.builds(
    Program,
    mode=st.sampled_from(["lazy", "lazy", "eager"]),
    family=st.sampled_from(["ipv4", "ipv4", "ipv6", "mapped"]),
    blocking_connect=st.booleans(),
    early=st.sampled_from([0, 0, 0, 0, 0, 0, 7, 3000]),
    before=st.one_of(st.just([]), st.just([]), st.lists(_BEFORE, max_size=3)),
    pairing=st.sampled_from(["ping", "ping", "ping", "ping", "nudge"]),
    pair_at=st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, 1, 2]),
    defuse_at=st.one_of(st.none(), st.none(), st.integers(1, 12)),
    steps=_STEPS,
)
