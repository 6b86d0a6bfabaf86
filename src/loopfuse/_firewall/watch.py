"""What looks at payload in one network namespace, and when that changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection

from loopfuse._firewall import nftables, traffic
from loopfuse._firewall.legacy import Legacy
from loopfuse._firewall.machine import Kind
from loopfuse._firewall.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Listener
from loopfuse._firewall.packet import Flow
from loopfuse._firewall.rules import Table
from loopfuse._firewall.walk import Watcher, watchers


class Watch:
    """Sees the namespace of the thread that makes it. Not thread-safe."""

    def __init__(self) -> None:
        self.blind: str | None = None
        """Why packet filters can't be read here; None: they can."""
        self._netfilter = nftables.open_netlink()
        self._route = traffic.open_netlink()
        self._legacy = Legacy()
        self.listeners: list[Listener] = []
        """They become readable when something has changed."""
        self._listen(NETLINK_ROUTE, (traffic.RTNLGRP_LINK, traffic.RTNLGRP_TC))
        self._told = self._listen(NETLINK_NETFILTER, (nftables.NFNLGRP_NFTABLES,))
        self._nft: list[Table] = []
        self._old: list[Table] = []
        self._tc: list[Watcher] = []
        self._silent = False
        self._anything: dict[bool, list[Watcher]] = {}
        """Of any connection, by family: empty for most rule sets, and then nobody walks."""
        self.read()

    def _listen(self, protocol: int, groups: tuple[int, ...]) -> bool:
        try:
            self.listeners.append(Listener(protocol, groups))
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._netfilter.close()
        self._route.close()
        self._legacy.close()
        for listener in self.listeners:
            listener.close()

    def heard(self) -> bool:
        """Has the kernel told of a change?"""
        told = [listener.heard() for listener in self.listeners]  # each forgets
        return any(told)

    def poll(self) -> bool:
        """Looks again at what the kernel tells nobody about; True if it has changed."""
        if self.blind is not None:
            return False
        self._old, changed = self._legacy.read()
        if self._silent or not self._told:
            self._read_nft()
            changed = True
        if changed:
            self._sum_up()
        return changed

    def read(self) -> None:
        """Looks at everything again."""
        self._read_nft()
        if self.blind is None:
            self._old, _ = self._legacy.read()
        try:
            self._tc = traffic.read(self._route)
        except OSError:
            self._tc = []  # no traffic control in this kernel
        self._sum_up()

    def _read_nft(self) -> None:
        try:
            self._nft, self._silent = nftables.read(self._netfilter)
            self.blind = None
        except OSError as error:
            self._nft, self._silent = [], False
            if error.errno in (errno.EPERM, errno.EACCES):
                self.blind = os.strerror(error.errno)
            # Anything else: a kernel without nftables.

    def _sum_up(self) -> None:
        self._anything = {is_ipv4: self._walk(Flow(is_ipv4)) for is_ipv4 in (True, False)}

    def _walk(self, flow: Flow) -> list[Watcher]:
        return watchers([*self._nft, *self._old], flow) + self._tc

    def all(self, ignored: Collection[Kind] = ()) -> list[Watcher]:
        """Whatever looks at the payload of any connection."""
        found = dict.fromkeys(self._anything[True] + self._anything[False])
        return [watcher for watcher in found if watcher.kind not in ignored]

    def concerning(self, flow: Flow, ignored: Collection[Kind] = ()) -> Watcher | None:
        """One that looks at the payload of this connection."""
        if not any(watcher.kind not in ignored for watcher in self._anything[flow.is_ipv4]):
            return None
        return next((one for one in self._walk(flow) if one.kind not in ignored), None)
