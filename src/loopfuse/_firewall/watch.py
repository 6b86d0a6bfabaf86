"""What looks at payload in one network namespace, and when that changes."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Collection

from loopfuse._firewall import nftables, traffic
from loopfuse._firewall.bpf import Tcx
from loopfuse._firewall.inside import Inside
from loopfuse._firewall.legacy import Legacy
from loopfuse._firewall.netlink import NETLINK_NETFILTER, NETLINK_ROUTE, Listener, Netlink
from loopfuse._firewall.packet import Flow
from loopfuse._firewall.rules import Table
from loopfuse._firewall.walk import Watcher, watchers

_MOST_SERVERS = 4096
_FOR_THE_MOMENT = (
    errno.ENOBUFS, errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.EMFILE, errno.ENFILE,
    errno.ETIMEDOUT, None,
)  # fmt: skip
"""None: socket.timeout has no number."""


class Watch:
    """Sees the namespace of the thread that makes it. Not thread-safe."""

    def __init__(self) -> None:
        self.blind: str | None = None
        """Why packet filters can't be read here; None: they can."""
        self._netfilter: Netlink | None = None
        with contextlib.suppress(OSError):  # a kernel without nftables
            self._netfilter = nftables.open_netlink()
        self._route = traffic.open_netlink()
        self.inside = Inside()
        self._legacy = Legacy(self.inside)
        self._tcx = Tcx(self.inside)
        self._bpf: list[Watcher] = []
        self.listeners: list[Listener] = []
        """They become readable when something has changed."""
        self._listen(NETLINK_ROUTE, (traffic.RTNLGRP_LINK, traffic.RTNLGRP_TC))
        self._told = self._listen(NETLINK_NETFILTER, (nftables.NFNLGRP_NFTABLES,))
        self._nft: list[Table] = []
        self._old: list[Table] = []
        self._tc: list[Watcher] = []
        self._silent = False
        self._unsure = False
        """Something could not be read for the moment: what was known still counts."""
        self._anything: dict[bool, list[Watcher]] = {}
        """Of any connection, by family: empty for most rule sets, and then nobody walks."""
        self._by_server: dict[Flow, list[Watcher]] = {}
        """Of any connection from one address to one server; the first claims find out."""
        self.read()

    def _listen(self, protocol: int, groups: tuple[int, ...]) -> bool:
        try:
            self.listeners.append(Listener(protocol, groups))
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._netfilter is not None:
            self._netfilter.close()
        self._route.close()
        self._legacy.close()
        self.inside.close()
        for listener in self.listeners:
            listener.close()

    def heard(self) -> bool:
        """Has the kernel told of a change?"""
        told = [listener.heard() for listener in self.listeners]  # each forgets
        return any(told)

    @property
    def changes_untold(self) -> bool:
        """Is there something that may change at any time, of which the kernel tells nobody? Where
        there is nothing so far, it may yet come to be."""
        asked_for = self._unsure or self._silent or not self._told
        return asked_for or bool(self._old) or bool(self._bpf)

    def poll(self) -> bool:
        """Looks again at what the kernel tells nobody about; True if it has changed."""
        if self.blind is not None:
            return False
        if self._unsure:
            self.read()
            return True
        self._old, changed = self._legacy.read()
        before, self._bpf = self._bpf, self._tcx.read()
        changed = changed or before != self._bpf
        if self._silent or not self._told:
            self._read_nft()
            changed = True
        if changed:
            self._sum_up()
        return changed

    def read(self) -> None:
        """Looks at everything again."""
        self._unsure = False
        self._read_nft()
        if self.blind is None:
            self._old, _ = self._legacy.read()
        self._bpf = self._tcx.read()
        try:
            self._tc = traffic.read(self._route)
        except OSError as error:
            if error.errno in _FOR_THE_MOMENT:
                self._unsure = True
            else:
                self._tc = []  # no traffic control in this kernel
        self._sum_up()

    def _read_nft(self) -> None:
        if self._netfilter is None:
            return
        try:
            self._nft, self._silent = nftables.read(self._netfilter)
            self.blind = None
        except OSError as error:
            if error.errno in _FOR_THE_MOMENT:
                self._unsure = True
                return
            self._nft, self._silent = [], False
            if error.errno in (errno.EPERM, errno.EACCES):
                self.blind = os.strerror(error.errno)
            # Anything else: a kernel without nftables.

    def _sum_up(self) -> None:
        self._by_server.clear()
        self._anything = {is_ipv4: self.walk(Flow(is_ipv4)) for is_ipv4 in (True, False)}

    def walk(self, flow: Flow) -> list[Watcher]:
        """Everything that looks at the payload of these connections."""
        return watchers([*self._nft, *self._old], flow) + self._tc + self._bpf

    def all(self, ignored: Collection[str] = ()) -> list[Watcher]:
        """Whatever looks at the payload of any connection."""
        found = dict.fromkeys(self._anything[True] + self._anything[False])
        return [watcher for watcher in found if watcher.kind not in ignored]

    def concerning(self, flow: Flow, ignored: Collection[str] = ()) -> Watcher | None:
        """One that looks at the payload of this connection."""
        if not any(watcher.kind not in ignored for watcher in self._anything[flow.is_ipv4]):
            return None
        if not any(one.kind not in ignored for one in self._of_any_port(flow)):
            return None
        return next((one for one in self.walk(flow) if one.kind not in ignored), None)

    def _of_any_port(self, flow: Flow) -> list[Watcher]:
        if flow.client is not None:
            flow = flow._replace(client=flow.client._replace(port=0))
        found = self._by_server.get(flow)
        if found is None:
            if len(self._by_server) >= _MOST_SERVERS:
                self._by_server.clear()
            found = self._by_server[flow] = self.walk(flow)
        return found
