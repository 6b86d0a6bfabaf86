"""Tables, chains, sets and rules, whoever they were read from."""

from __future__ import annotations

from dataclasses import dataclass, field

from loopfuse._firewall.machine import Step, Verdict
from loopfuse._firewall.packet import Hook


@dataclass(frozen=True)
class Place:
    """Where a rule stands: the owner's name for it, for a person to find it."""

    tool: str
    """`nft`, `iptables` or `ip6tables`, with `-legacy` where it is that."""
    family: str
    """`ip`, `ip6`, `inet` or `netdev`."""
    table: str

    def describe(self, chain: str) -> str:
        if self.tool == "nft":
            return f"nft {self.family} {self.table} {chain}"
        return f"{self.tool} -t {self.table} {chain}"


@dataclass
class Rule:
    """One rule; `handle` is how nft or iptables -L --line-numbers finds it."""

    handle: int
    steps: list[Step]
    counts_only: bool = False
    """A rule of iptables without a target: it is there for its counter."""


@dataclass
class Chain:
    """A chain; without a hook it is only jumped to."""

    name: str
    hook: Hook | None = None
    drops: bool = False
    """Its policy, if it has a hook."""
    rules: list[Rule] = field(default_factory=list)


@dataclass
class Table:
    """Chains that can jump to each other."""

    place: Place
    chains: dict[str, Chain] = field(default_factory=dict)
    implicit_counters: bool = False

    def sees(self, is_ipv4: bool) -> bool:
        """Do packets of this family meet it?"""
        return self.place.family not in ("ip6" if is_ipv4 else "ip", "bridge", "arp")


@dataclass(frozen=True)
class Element:
    """From `low` to `high`, both included; field by field if the set has `fields`."""

    low: bytes
    high: bytes
    verdict: Verdict | None = None


@dataclass
class Set:
    """A named or anonymous set or map."""

    elements: list[Element] | None = field(default_factory=list)
    """None: not known, or too many to keep."""
    fields: tuple[int, ...] = ()
    """Bytes of each field of a concatenation, padding included."""
    verdict_otherwise: Verdict | None = None
    """Of the catch-all element."""
    catches_all: bool = False
    changes_silently: bool = False
    """Packets may add to it, and nobody is told."""
