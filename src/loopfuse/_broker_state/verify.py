"""Does the kernel confirm what a library claims?

A claim is believed in nothing. The socket has to be in the network namespace the claim
names, with just these addresses and that cookie, held by a process, established, and
the claimant's own: same user, or (for a broker of root, which serves programs that
changed their user after they made the socket) among the claimant's descriptors.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import NamedTuple

from loopfuse._broker_state.firewall import Firewall
from loopfuse._errors import SockDiagError
from loopfuse._firewall.inside import call_in
from loopfuse._firewall.watch import Watch
from loopfuse._kernel import Credentials, holds_socket, netns_cookie, runs_as
from loopfuse._matching import Endpoint
from loopfuse._reasons import Reason
from loopfuse._sockdiag import SockDiag, SocketInfo, State

_MOST_INTERFACES = 16
INTERFACES_INTERVAL = 1.0
"""Seconds between two looks at which devices there are."""


class Verdict(NamedTuple):
    """`reason` is NONE if the claim holds; `info` is what the kernel said, if the socket
    is the claimant's at all."""

    reason: Reason
    info: SocketInfo | None


class NetnsView:
    """Looks into one network namespace. Must be made in a thread that is in it."""

    def __init__(self) -> None:
        self.diag = SockDiag()
        self.cookie = netns_cookie(self.diag.socket)
        self._interfaces = _interfaces()
        self._looked = time.monotonic()
        self.watch = Watch()

    def close(self) -> None:
        self.diag.close()
        self.watch.close()

    def find(
        self, local: Endpoint, remote: Endpoint, cookie: int | None = None
    ) -> SocketInfo | None:
        """The connection, whatever device it is bound to; None if there is none, or if
        the kernel can't say."""
        try:
            for interface in self._devices():
                info = self.diag.lookup(local, remote, cookie=cookie, interface=interface)
                if info is not None:
                    return info
        except SockDiagError:
            pass
        return None

    def _devices(self) -> Iterator[int]:
        """Those known; then those that have come since, for which one looks once in a while."""
        known = self._interfaces
        yield from known
        now = time.monotonic()
        if now - self._looked < INTERFACES_INTERVAL:
            return
        self._looked = now
        self._interfaces = self.watch.inside.call(_interfaces) or [0]
        yield from (one for one in self._interfaces if one not in known)

    def listener(self, local: Endpoint) -> int:
        """The inode of the socket that listens there; 0: none, or the kernel can't say."""
        try:
            for interface in self._interfaces:
                inode = self.diag.listener(local, interface=interface)
                if inode:
                    return inode
        except SockDiagError:
            pass
        return 0


def _interfaces() -> list[int]:
    """What a socket may be bound to in this thread's namespace; 0: nothing."""
    return [0, *(index for index, _ in socket.if_nameindex()[:_MOST_INTERFACES])]


class Verifier:
    """Knows one view for each network namespace in use."""

    def __init__(self, firewall: Firewall) -> None:
        self._uid = os.geteuid()
        self._firewall = firewall
        self._own = NetnsView()
        self._views: dict[int, NetnsView] = {}
        self._add(self._own)

    @property
    def home(self) -> int:
        """The broker's own namespace."""
        return self._own.cookie

    def _add(self, view: NetnsView) -> None:
        self._views[view.cookie] = view
        self._firewall.add(view.cookie, view.watch)

    def close(self) -> None:
        for view in self._views.values():
            view.close()

    def check(
        self,
        who: Credentials,
        netns: int,
        local: Endpoint,
        remote: Endpoint,
        cookie: int,
    ) -> Verdict:
        """Judges one claim."""
        if local == remote:
            return Verdict(Reason.NOT_VERIFIED, None)
        view = self.view(netns, who.pid)
        if view is None:
            return Verdict(Reason.FOREIGN_NETNS, None)
        info = view.find(local, remote, cookie)
        if info is None or not info.inode or not self._is_owner(who, info):
            return Verdict(Reason.NOT_VERIFIED, None)
        if info.transparent:
            # A proxy that takes the client's address towards the server, and the server's towards
            # the client, has two sockets that mirror each other and are not connected.
            return Verdict(Reason.NOT_VERIFIED, info)
        if info.state == State.ESTABLISHED:
            return Verdict(Reason.NONE, info)
        return Verdict(Reason.TOO_LATE, info)

    def _is_owner(self, who: Credentials, info: SocketInfo) -> bool:
        if who.uid in (info.uid, 0):
            return True
        # In this order: who connected to us may have become a setuid program since, or ended, and
        # its number be another process'. Such a one's sockets are not the claimant's.
        return self._uid == 0 and holds_socket(who.pid, info.inode) and runs_as(who.pid, who.uid)

    def may_cross_users(self) -> bool:
        """Only root's broker may fuse two users' processes."""
        return self._uid == 0

    def view(self, netns: int, pid: int = 0) -> NetnsView | None:
        """The view of a namespace; opened through the process `pid` if it is not known
        yet. None if this broker can't look into it."""
        known = self._views.get(netns)
        if known is not None or self._uid != 0 or pid <= 0:
            return known
        view = _open_foreign(pid)
        if view is None:
            return None
        if view.cookie != netns or view.cookie in self._views:
            view.close()
            return None
        self._add(view)
        return view

    @property
    def looks_abroad(self) -> bool:
        """Is there a view that may have to be closed?"""
        return len(self._views) > 1

    def forget_all_but(self, used: set[int]) -> None:
        """Closes the views of namespaces no connection is in: a view would keep a
        namespace alive whose last process has gone."""
        for cookie in set(self._views) - used - {self._own.cookie}:
            self._firewall.remove(cookie)
            self._views.pop(cookie).close()


def _open_foreign(pid: int) -> NetnsView | None:
    """A view of the namespace of process `pid`; its netlink socket, which is made there, stays
    bound to that namespace. None: the process is gone, or this root is not root there."""
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return call_in(fd, NetnsView)
    finally:
        os.close(fd)
