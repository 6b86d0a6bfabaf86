"""Which connections may be fused: the rules of a policy file (docs/policy.md). Pure.

Rules are looked at in their order, and the first that matches decides. What is not known of
an end yet (nobody has claimed it) makes a rule neither match nor not: then nothing is decided.
"""

from __future__ import annotations

import enum
import ipaddress
from fnmatch import fnmatchcase
from typing import NamedTuple

from loopfuse._matching import Endpoint

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Who(NamedTuple):
    """The process at one end."""

    uid: int
    comm: str | None
    """Its name as `ps` shows it; None: hidden."""
    executable: str | None
    """The path of its program; None: hidden."""


class Party(NamedTuple):
    """One end of a connection; `who` is None while it has not claimed."""

    endpoint: Endpoint
    who: Who | None = None


class Answer(enum.Enum):
    """Of a question about an end: UNSEEN if it can be told later, HIDDEN if never."""

    NO = 0
    HIDDEN = 1
    UNSEEN = 2
    YES = 3


class Ruling(NamedTuple):
    """What a policy decides, and by which of its rules (from 1 on); None: by its default."""

    allow: bool
    rule: int | None


class Rule(NamedTuple):
    """Matches a connection if all that it names does; of each list one is enough."""

    allow: bool
    ports: tuple[tuple[int, int], ...] = ()
    """From, to; of the server's end."""
    addresses: tuple[Network, ...] = ()
    """Of either end."""
    users: tuple[int, ...] = ()
    """User ids, of either end."""
    programs: tuple[str, ...] = ()
    """Patterns, of either end: with a slash of the path, else of the name."""

    def matches(self, client: Party, server: Party) -> Answer:
        """Is it about this connection?"""
        port = server.endpoint.port
        if self.ports and not any(low <= port <= high for low, high in self.ports):
            return Answer.NO
        both = (client, server)
        if self.addresses and not any(self._has_address(party.endpoint) for party in both):
            return Answer.NO
        answers = [Answer.YES]
        if self.users:
            answers.append(_either([self._has_user(party.who) for party in both]))
        if self.programs:
            answers.append(_either([self._has_program(party.who) for party in both]))
        return min(answers, key=lambda answer: answer.value)

    def _has_address(self, endpoint: Endpoint) -> bool:
        version = 4 if endpoint.is_ipv4 else 6
        number = int.from_bytes(endpoint.addr, "big")
        return any(
            net.version == version
            and int(net.network_address) == number & int(net.netmask)
            for net in self.addresses
        )  # fmt: skip

    def _has_user(self, who: Who | None) -> Answer:
        if who is None:
            return Answer.UNSEEN
        return Answer.YES if who.uid in self.users else Answer.NO

    def _has_program(self, who: Who | None) -> Answer:
        if who is None:
            return Answer.UNSEEN
        return _either([is_program(who, pattern) for pattern in self.programs])


def _either(answers: list[Answer]) -> Answer:
    return max(answers, key=lambda answer: answer.value)


def is_program(who: Who, pattern: str) -> Answer:
    """Does the pattern fit the process? With a slash it is one of paths, else of names."""
    if "/" in pattern:
        names = [who.executable]
    else:
        base = who.executable.rpartition("/")[2] if who.executable is not None else None
        names = [who.comm, base]
    if any(name is not None and fnmatchcase(name, pattern) for name in names):
        return Answer.YES
    return Answer.HIDDEN if None in names else Answer.NO


class Policy(NamedTuple):
    """What a policy file says; without one, everything is allowed."""

    source: str | None = None
    """The file's path."""
    rules: tuple[Rule, ...] = ()
    default_allow: bool = True
    ignored: tuple[str, ...] = ()
    """Kinds of packet filter rules that are to be ignored (`loopfuse._firewall`)."""

    def ruling(self, client: Party, server: Party) -> Ruling | None:
        """May they be fused? None: that can't be told before both ends have claimed. An
        end that hides what a rule asks about is taken for one that the rule forbids."""
        for number, rule in enumerate(self.rules, 1):
            answer = rule.matches(client, server)
            if answer == Answer.UNSEEN:
                return None
            if answer == Answer.YES or (answer == Answer.HIDDEN and not rule.allow):
                return Ruling(rule.allow, number)
        return Ruling(self.default_allow, None)

    def describe(self) -> str:
        """One line for a person."""
        if self.source is None:
            return "no policy file: every connection may be fused"
        count = f"{len(self.rules)} rule{'' if len(self.rules) == 1 else 's'}"
        rest = "allowed" if self.default_allow else "denied"
        heed = f"; ignores firewall rules of kind {', '.join(self.ignored)}" if self.ignored else ""
        return f"{self.source}: {count}, the rest is {rest}{heed}"


EVERYTHING = Policy()
