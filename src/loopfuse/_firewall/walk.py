"""Follows a packet through the chains: which rules watch it?

As in the kernel: at each hook all base chains are met, a verdict ends one chain or all. Where
it is unsure whether a rule matches, both ways are taken. Chains of type nat are not among
the tables here: only the first packet of a connection meets them.

A drop counts only if it could tell this packet from the handshake's, which has passed: one
that hangs on a mark or on anything else that is settled for the whole connection does not,
nor does a policy of drop behind rules that may have accepted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from loopfuse._firewall.machine import WORDS, Action, Kind, Machine
from loopfuse._firewall.packet import Flow, Hook, Packet
from loopfuse._firewall.rules import Chain, Rule, Table
from loopfuse._firewall.values import Match

_DEEPEST = 16  # NFT_JUMP_STACK_SIZE


class Watcher(NamedTuple):
    """A rule that looks at payload."""

    where: str
    """For example `nft inet filter input, handle 7`."""
    kind: Kind
    concerns: str
    """Which connections, as nft writes it; empty: all."""

    def describe(self) -> str:
        """One line for a person."""
        whom = f"connections with {self.concerns}" if self.concerns else "every connection on lo"
        return f"{self.where}: {WORDS[self.kind]}; concerns {whom}"


def watchers(tables: Iterable[Table], flow: Flow) -> list[Watcher]:
    """The rules that look at payload of these connections, each once."""
    found: dict[Watcher, None] = {}
    mine = [table for table in tables if table.sees(flow.is_ipv4)]
    for to_server in (True, False):
        for hook in Hook:
            packet = Packet(flow, hook, to_server=to_server)
            for table in mine:
                for chain in table.chains.values():
                    if chain.hook == hook:
                        found.update(dict.fromkeys(_Walk(table, packet).base(chain)))
    return list(found)


class _Walk:
    """One packet in one base chain."""

    def __init__(self, table: Table, packet: Packet) -> None:
        self._table = table
        self._packet = packet
        self._found: list[Watcher] = []
        self._maybe_accepted = False
        self._fell_through: dict[tuple[str, tuple[str, ...]], bool] = {}
        """Of chains walked before: did the packet come out at the end?"""

    def base(self, chain: Chain) -> list[Watcher]:
        fell = self._chain(chain, 0)
        if fell and chain.drops and not self._maybe_accepted:
            where = f"{self._table.place.describe(chain.name)}, policy"
            self._found.append(Watcher(where, Kind.DROP, ""))
        return self._found

    def _chain(self, chain: Chain, depth: int, context: tuple[str, ...] = ()) -> bool:
        """Walks it; False if no packet comes out at its end, or returns. `context`: what
        the rules that lead here ask for."""
        for rule in chain.rules:
            machine = self._rule(chain, rule, context)
            for (action, target), match in machine.verdicts:
                sure = match == Match.YES
                if action == Action.ACCEPT:
                    self._maybe_accepted = self._maybe_accepted or not sure
                if action in (Action.ACCEPT, Action.DROP) and sure:
                    return False
                if action == Action.RETURN and sure:
                    return True
                if action in (Action.JUMP, Action.GOTO) and depth < _DEEPEST:
                    fell = self._jump(target, depth, (*context, *machine.words))
                    if sure and (action == Action.GOTO or not fell):
                        return fell
        return True

    def _jump(self, name: str, depth: int, context: tuple[str, ...]) -> bool:
        known = self._fell_through.get((name, context))
        if known is None:
            chain = self._table.chains.get(name)
            known = chain is None or self._chain(chain, depth + 1, context)
            self._fell_through[name, context] = known
        return known

    def _rule(self, chain: Chain, rule: Rule, context: tuple[str, ...]) -> Machine:
        machine = Machine(self._packet)
        machine.implicit_counters = self._table.implicit_counters
        for step in rule.steps:
            step(machine)
            if machine.match == Match.NO:
                break
        self._note(chain, rule, machine, context)
        return machine

    def _note(self, chain: Chain, rule: Rule, machine: Machine, context: tuple[str, ...]) -> None:
        where = f"{self._table.place.describe(chain.name)}, "
        where += f"{'handle' if self._table.place.tool == 'nft' else 'rule'} {rule.handle}"
        concerns = " ".join(dict.fromkeys((*context, *machine.words)))
        kinds = list(machine.seen)
        if rule.counts_only and machine.match > Match.NO and Kind.COUNTER not in kinds:
            kinds.append(Kind.COUNTER)
        drops = (m for v, m in machine.verdicts if v.action == Action.DROP)
        if max(drops, default=Match.NO) >= Match.MAYBE:
            kinds.append(Kind.DROP)
        self._found += [Watcher(where, kind, concerns) for kind in kinds]
