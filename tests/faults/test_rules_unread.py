"""Packet filter rules that can't be read for the moment still count."""

from __future__ import annotations

import errno

import pytest

from loopfuse._firewall import nftables, traffic
from loopfuse._firewall.netlink import Netlink
from loopfuse._firewall.rules import Place, Table
from loopfuse._firewall.walk import Kind, Watcher
from loopfuse._firewall.watch import Watch

RULES = nftables.Nftables([Table(Place("nft", "inet", "filter"))], False)
QDISC = [Watcher("tc qdisc netem on lo", Kind.TC, "")]


def no_memory(_netlink: Netlink) -> nftables.Nftables:
    raise OSError(errno.ENOBUFS, "No buffer space available")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """It knows a table and a queueing discipline."""
    monkeypatch.setattr(nftables, "read", lambda _netlink: RULES)
    monkeypatch.setattr(traffic, "read", lambda _netlink: QDISC)
    watch = Watch()
    assert watch._nft == RULES.tables and watch._tc == QDISC
    return watch


@pytest.mark.parametrize("module", [nftables, traffic])
def test_rules_that_can_not_be_read_for_the_moment_stay(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    try:
        monkeypatch.setattr(module, "read", no_memory)
        watch.read()
        assert watch._nft == RULES.tables
        assert watch._tc == QDISC
        monkeypatch.setattr(nftables, "read", lambda _netlink: nftables.Nftables([], False))
        monkeypatch.setattr(traffic, "read", lambda _netlink: [])
        assert watch.poll(), "it looks again, though the kernel tells of no change"
        assert watch._nft == [] and watch._tc == []
    finally:
        watch.close()
