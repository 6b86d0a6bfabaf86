"""What keeps a connection from being fused before the broker has a say: codes and words.

They go on where `loopfuse._reasons` ends: those are what library and broker tell each other,
these can only be seen from outside.
"""

from __future__ import annotations

import enum

from loopfuse._elf import Obstacle
from loopfuse._reasons import EXPLANATIONS, Explanation, Reason


class Circumstance(enum.Enum):
    """The value is the code that a person sees."""

    NO_LIBRARY = "no-library"
    STATIC_PROGRAM = "static-program"
    MUSL_PROGRAM = "musl-program"
    FOREIGN_PROGRAM = "foreign-program"
    PRIVILEGED_PROGRAM = "privileged-program"
    HIDDEN_PROCESS = "hidden-process"
    REMOTE_HOST = "remote-host"
    OTHER_NAMESPACE = "other-namespace"
    NO_OTHER_END = "no-other-end"
    SELF_CONNECTION = "self-connection"
    NOT_ACCEPTED = "not-accepted"
    NO_BROKER = "no-broker"
    OTHER_BROKER = "other-broker"
    NOT_ASKED = "not-asked"


OF_OBSTACLE = {
    Obstacle.STATIC: Circumstance.STATIC_PROGRAM,
    Obstacle.MUSL: Circumstance.MUSL_PROGRAM,
    Obstacle.FOREIGN: Circumstance.FOREIGN_PROGRAM,
    Obstacle.PRIVILEGED: Circumstance.PRIVILEGED_PROGRAM,
    Obstacle.NOT_ELF: Circumstance.NO_LIBRARY,
}

WORDS: dict[Circumstance, Explanation] = {
    Circumstance.NO_LIBRARY: Explanation(
        "{who} does not run under loopfuse: it was started without.",
        "End {who}, and start it with `loopfuse run`.",
    ),
    Circumstance.STATIC_PROGRAM: Explanation(
        "{who} is statically linked: the library can't be loaded into it.",
        "Use a dynamically linked build of {who} (Go: with cgo and the system's resolver; "
        "`loopfuse doctor PROGRAM` tells).",
    ),
    Circumstance.MUSL_PROGRAM: Explanation(
        "{who} is linked against musl: a glibc library can't be loaded into it.",
        "Use a build of {who} against glibc.",
    ),
    Circumstance.FOREIGN_PROGRAM: Explanation(
        "{who} is built for another machine or word size than the library.",
        "Use a build of {who} for this machine.",
    ),
    Circumstance.PRIVILEGED_PROGRAM: Explanation(
        "{who} is set-user-ID, set-group-ID or has file capabilities: ld.so does not preload "
        "anything into it.",
        "Run a copy of {who} without privileges on the file, if it works so; loopfuse leaves "
        "this one alone.",
    ),
    Circumstance.HIDDEN_PROCESS: Explanation(
        "One end belongs to {who}, whose processes you may not look into.",
        "Ask as root: `sudo loopfuse why`. Programs of two users are only fused by a broker "
        "that root runs.",
    ),
    Circumstance.REMOTE_HOST: Explanation(
        "The other end is on another host.",
        "Move both programs to one host; memory is shared nowhere else.",
    ),
    Circumstance.OTHER_NAMESPACE: Explanation(
        "The other end is in another network namespace of this host, as in a container.",
        "Let both programs share a network namespace (containers: `--network host`, or "
        "`--network container:NAME`).",
    ),
    Circumstance.NO_OTHER_END: Explanation(
        "No socket one can see here is the other end: it has closed, is in another network "
        "namespace, or address translation (NAT, a published port) lies between.",
        "Connect to the address that the server itself listens at, in one network namespace.",
    ),
    Circumstance.SELF_CONNECTION: Explanation(
        "The socket is connected to itself.",
        "Connect to another port than the one that is bound: such a connection is mostly an "
        "accident.",
    ),
    Circumstance.NOT_ACCEPTED: Explanation(
        "The server has not accepted the connection yet.",
        "Wait until the server accepts it; if it does not, the server is stuck.",
    ),
    Circumstance.NO_BROKER: Explanation(
        "Both programs run under loopfuse, but no broker answers as it should at {who}.",
        "End the broker there, if there is one, and start any program with `LOOPFUSE_BROKER={who} "
        "loopfuse run`, which starts another.",
    ),
    Circumstance.OTHER_BROKER: Explanation(
        "The two programs go by different brokers (LOOPFUSE_BROKER, or two users).",
        "Start both with `loopfuse run` under one LOOPFUSE_BROKER, or under root's broker.",
    ),
    Circumstance.NOT_ASKED: Explanation(
        "{who} runs under loopfuse, but has not asked for this connection: it has made fewer "
        "than eight I/O calls on it, or the socket is one that is never asked for (inherited "
        "through exec, sent by another process).",
        "Wait for a few more calls, start {who} with `loopfuse run --after 0`, or let {who} "
        "make the connection itself.",
    ),
}


def explain(code: Reason | Circumstance, who: str) -> Explanation:
    """The words for a code; `who` is the program it is about, for NO_BROKER a path."""
    if isinstance(code, Reason):
        return EXPLANATIONS[code]
    words, what_to_do = WORDS[code]
    return Explanation(_about(words, who), _about(what_to_do, who))


def _about(text: str, who: str) -> str:
    said = text.replace("{who}", who)
    return said[0].upper() + said[1:] if text.startswith("{who}") and " " in who else said
