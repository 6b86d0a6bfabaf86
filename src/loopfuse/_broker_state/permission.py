"""May a connection be fused, for all that policy and packet filters say?

Asked when an end claims, when both have, and again of live pairs when a rule or the policy
has changed: those that may not be fused any more go back to TCP, each end at its next send.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from loopfuse._broker_state.decisions import Decisions
from loopfuse._broker_state.firewall import Firewall
from loopfuse._broker_state.ledger import Connection, End
from loopfuse._broker_state.rows import is_fusing
from loopfuse._firewall.packet import Flow
from loopfuse._kernel import executable_of
from loopfuse._matching import Endpoint, Name
from loopfuse._policy import Party, Policy, Who
from loopfuse._reasons import Reason

_MOST_RULES = 100


class Objection(NamedTuple):
    """Why not."""

    reason: Reason
    detail: str
    """The rule, for a person to find it."""


class Permission:
    """`policy` may be replaced at any time; then `review` what is fused."""

    def __init__(self, policy: Policy, firewall: Firewall, home: int, decisions: Decisions) -> None:
        """`home`: the broker's own namespace."""
        self.policy = policy
        self._firewall = firewall
        self._home = home
        self._decisions = decisions

    def objection(
        self, name: Name, client: Endpoint, ends: Mapping[Endpoint, End]
    ) -> Objection | None:
        """What stands against the connection whose client end this is; `ends`: those that
        have claimed."""
        server = name.other(client)
        ruling = self.policy.ruling(
            self._party(client, ends.get(client)), self._party(server, ends.get(server))
        )
        if ruling is not None and not ruling.allow:
            rule = "the default" if ruling.rule is None else f"rule {ruling.rule}"
            return Objection(Reason.POLICY, f"{rule} of {self.policy.source}")
        flow = Flow(client.is_ipv4, client, server)
        watcher = self._firewall.concerning(name.netns_cookie, flow, self.policy.ignored)
        if watcher is not None:
            return Objection(Reason.FIREWALL, watcher.describe())
        return None

    def _party(self, endpoint: Endpoint, end: End | None) -> Party:
        if end is None or not self.policy.rules:
            return Party(endpoint)
        client = end.client
        executable = executable_of(client.credentials.pid)
        return Party(endpoint, Who(end.uid, client.comm, executable))

    def review(self, connections: Iterable[Connection]) -> None:
        """Sends those back to TCP that may not be fused any more."""
        for connection in connections:
            if not is_fusing(connection) or connection.client_end is None:
                continue
            objection = self.objection(connection.name, connection.client_end, connection.ends)
            if objection is not None:
                connection.wish(objection.reason)
                connection.detail = objection.detail
                self._decisions.defused(connection, objection.reason, objection.detail)

    def rules(self) -> list[str]:
        """Rules in the broker's own namespace that keep connections from being fused."""
        found = self._firewall.watchers(self._home, self.policy.ignored)
        return [watcher.describe() for watcher in found[:_MOST_RULES]]

    def blind(self) -> str | None:
        """Why such rules can't be read there; None: they can."""
        return self._firewall.blind(self._home)


def may_defuse(connection: Connection, uid: int) -> bool:
    """May this user order it? The connection's users, the broker's and root may."""
    return may_watch(connection.ends.values(), uid)


def may_watch(ends: Iterable[End], uid: int) -> bool:
    """May this user see the payload of a connection with these ends? The same users as may
    defuse it: whoever runs one end has all of it in a program of its own."""
    return uid in (0, os.geteuid(), *(end.uid for end in ends))
