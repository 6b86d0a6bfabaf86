"""Which rules look at the payload of a connection on lo? Read back from the kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from firewall.namespace import Namespace, namespace
from loopfuse._firewall.packet import Flow
from loopfuse._firewall.watch import Watch
from loopfuse._matching import Endpoint

HOME = socket.inet_aton("127.0.0.1")
HOME6 = socket.inet_pton(socket.AF_INET6, "::1")


def flow(port: int = 6379, family: int = 4) -> Flow:
    home = HOME if family == 4 else HOME6
    return Flow(family == 4, Endpoint(home, 40000), Endpoint(home, port))


@pytest.fixture(autouse=True)
def clean(place: Namespace) -> Iterator[None]:
    yield
    place.run("nft", "flush", "ruleset")


def kinds(place: Namespace, port: int = 6379, family: int = 4) -> set[str]:
    """The kinds of all rules that look at a connection to this port."""
    watch = place.inside(Watch)
    try:
        assert watch.blind is None
        return {one.kind.value for one in watch.walk(flow(port, family))}
    finally:
        watch.close()


def chain(rules: str, hook: str = "input", family: str = "inet", policy: str = "accept") -> str:
    head = f"type filter hook {hook} priority 0; policy {policy};"
    return f"table {family} t {{ chain c {{ {head}\n{rules}\n}}\n}}\n"


SEEN = [
    ("tcp dport 6379 counter accept", {"counter"}),
    ("counter", {"counter"}),
    ("ip saddr 127.0.0.0/8 tcp sport 6379 counter", {"counter"}),
    ("tcp dport { 22, 6379 } counter", {"counter"}),
    ("tcp dport 6000-7000 counter", {"counter"}),
    ("iif lo counter", {"counter"}),
    ('iifname "lo" counter', {"counter"}),
    ("ct state established counter", {"counter"}),
    ("ct state established,related accept\ncounter", set()),
    ("iif lo accept\ncounter", set()),
    ("ct state new counter accept", set()),
    ("tcp flags syn / fin,syn,rst,ack counter", set()),
    ("tcp dport 80 counter", set()),
    ("tcp dport != 80 counter", {"counter"}),
    ("udp dport 6379 counter", set()),
    ("ip saddr 10.0.0.0/8 counter", set()),
    ('iifname "eth0" counter', set()),
    ("ip6 saddr ::1 counter", set()),
    ("limit rate 10 mbytes/second accept", {"limit"}),
    ("quota over 100 mbytes drop", {"quota", "drop"}),
    ("ct bytes > 1000000 drop", {"connbytes"}),
    ("ct packets > 10 accept", {"connbytes"}),
    ("queue num 3", {"queue"}),
    ("log", {"log"}),
    ("meta length > 1000 drop", {"length", "drop"}),
    ("@th,160,32 0x47455420 drop", {"content", "drop"}),
    ("ip dscp set cs3", {"mangle"}),
    ("tcp dport 6379 drop", {"drop"}),
    ("tcp dport 6379 ct state new drop", set()),
    ("tcp dport 6379 reject with tcp reset", {"drop"}),
    ("meta mark 5 drop", set()),
    ("ct mark 5 counter", {"counter"}),
    ("numgen random mod 100 < 1 drop", {"sample", "drop"}),
    ("tcp dport vmap { 6379 : drop, 22 : accept }", {"drop"}),
    ("tcp dport vmap { 22 : drop, 80 : accept }", set()),
]


@pytest.mark.parametrize(("rules", "expected"), SEEN)
def test_what_a_rule_of_nftables_sees(place: Namespace, rules: str, expected: set[str]) -> None:
    place.rules(chain(rules))
    assert kinds(place) == expected


@pytest.mark.parametrize(
    ("hook", "expected"),
    [
        ("prerouting", {"counter"}),
        ("input", {"counter"}),
        ("output", {"counter"}),
        ("postrouting", {"counter"}),
        ("forward", set()),
    ],
)
def test_where_a_packet_on_lo_comes_by(place: Namespace, hook: str, expected: set[str]) -> None:
    place.rules(chain("counter", hook))
    assert kinds(place) == expected


def test_jumps_are_followed_and_returns_heeded(place: Namespace) -> None:
    place.rules(
        """table inet t {
            chain deep {
                counter
            }
            chain services {
                tcp dport 22 return
                tcp dport 6379 jump deep
            }
            chain c {
                type filter hook input priority 0
                jump services
            }
        }"""
    )
    assert kinds(place) == {"counter"}
    assert kinds(place, 22) == set()
    assert kinds(place, 80) == set()


def test_sets_and_maps_are_looked_up(place: Namespace) -> None:
    place.rules(
        """table inet t {
            set watched { type inet_service; flags interval; elements = { 6000-6500, 8080 } }
            set pairs { type ipv4_addr . inet_service; elements = { 127.0.0.1 . 9000 } }
            chain c { type filter hook input priority 0
                tcp dport @watched counter
                ip daddr . tcp dport @pairs counter
            }
        }"""
    )
    seen = {port: kinds(place, port) for port in (5999, 6000, 6500, 6501, 8080, 9000, 9001)}
    assert [port for port, found in seen.items() if found] == [6000, 6500, 8080, 9000]


def test_named_counters_and_quotas_count(place: Namespace) -> None:
    place.rules(
        """table inet t {
            counter http { }
            quota much { 10 mbytes }
            chain c { type filter hook input priority 0
                tcp dport 80 counter name http
                tcp dport 81 quota name much drop
            }
        }"""
    )
    assert kinds(place, 80) == {"counter"}
    assert kinds(place, 81) == {"quota", "drop"}
    assert kinds(place, 82) == set()


def test_each_family_meets_its_own_rules(place: Namespace) -> None:
    place.rules(chain("counter", family="ip"))
    assert (kinds(place, family=4), kinds(place, family=6)) == ({"counter"}, set())
    place.rules(chain("counter", family="ip6"))
    assert (kinds(place, family=4), kinds(place, family=6)) == (set(), {"counter"})


def test_a_policy_of_drop_concerns_what_no_rule_accepts(place: Namespace) -> None:
    place.rules(chain("ct state established,related accept", policy="drop"))
    assert kinds(place) == set()
    place.rules(chain("tcp dport 22 accept\nct state new accept", policy="drop"))
    assert kinds(place) == {"drop"}


def test_nat_meets_only_the_first_packet(place: Namespace) -> None:
    rules = chain("tcp dport 1 counter", "output", "ip").replace("filter", "nat", 1)
    place.rules(rules)
    assert kinds(place, 1) == set()


def test_a_dormant_table_sees_nothing(place: Namespace) -> None:
    place.rules(chain("counter").replace("{ chain", "{ flags dormant; chain", 1))
    assert kinds(place) == set()


def test_netdev_rules_on_lo_count_on_others_not(place: Namespace) -> None:
    place.rules(chain("tcp dport 6379 counter", "ingress device lo", "netdev"))
    assert kinds(place) == {"counter"}
    assert kinds(place, 1) == set()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-A INPUT -p tcp --dport 6379 -j ACCEPT", set()),
        ("-A INPUT -p tcp --dport 6379", {"counter"}),
        ("-A INPUT -p tcp --dport 6379 -m connbytes --connbytes 1000: --connbytes-dir both "
         "--connbytes-mode bytes -j DROP", {"connbytes", "drop"}),
        ("-A INPUT -p tcp --dport 6379 -j NFQUEUE --queue-num 1", {"queue"}),
        ("-A INPUT -p tcp -m multiport --dports 22,6379 -j LOG", {"log"}),
        ("-A INPUT -p tcp -m multiport --dports 22,80 -j LOG", set()),
        ("-A INPUT -m conntrack --ctstate NEW -j LOG", set()),
        ("-A INPUT -p tcp -m limit --limit 5/s -j ACCEPT", {"limit"}),
        ("-A INPUT -p tcp -m string --string GET --algo bm -j DROP", {"content", "drop"}),
        ("-A INPUT -p tcp -m quota --quota 100000 -j ACCEPT", {"quota"}),
        ("-A INPUT -i lo -j ACCEPT", set()),
        ("-A OUTPUT -o lo -p tcp -m owner --uid-owner 0 -j LOG", {"log"}),
    ],
)  # fmt: skip
def test_what_a_rule_of_iptables_sees(place: Namespace, rule: str, expected: set[str]) -> None:
    for tool in _iptables():
        place.run(tool, "-F")
        place.run(tool, *rule.replace('"', "").split())
        assert kinds(place) == expected, tool
        place.run(tool, "-F")


def test_rules_of_a_module_that_is_loaded_later_are_seen(
    place: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_module(path: str, *flags: int) -> int:
        if path.endswith("_tables_names"):
            raise FileNotFoundError(path)
        return _open(path, *flags)

    _open = os.open
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", without_the_module)
        watch = place.inside(Watch)
    rule = "-A INPUT -p tcp -m quota --quota 100000 -j ACCEPT"
    place.run("iptables-legacy", *rule.split())
    try:
        assert watch.poll(), "in this thread, which is in another namespace"
        assert {one.kind.value for one in watch.walk(flow())} == {"quota"}
    finally:
        watch.close()
        place.run("iptables-legacy", "-F")


def _iptables() -> list[str]:
    return ["iptables-nft", "iptables-legacy"]


def test_traffic_control_on_lo_concerns_everything(place: Namespace) -> None:
    place.run("tc", "qdisc", "add", "dev", "lo", "root", "pfifo")
    try:
        assert kinds(place) == {"tc"}
    finally:
        place.run("tc", "qdisc", "del", "dev", "lo", "root")
    assert kinds(place) == set()


def test_a_filter_of_traffic_control_concerns_everything(place: Namespace) -> None:
    place.run("tc", "qdisc", "add", "dev", "lo", "clsact")
    try:
        assert kinds(place) == set()
        place.run(
            "tc",
            *[
                "filter",
                "add",
                "dev",
                "lo",
                "egress",
                "protocol",
                "ip",
                "u32",
                "match",
                "u32",
                "0",
                "0",
            ],
        )
        assert kinds(place) == {"tc"}
    finally:
        place.run("tc", "qdisc", "del", "dev", "lo", "clsact")


def test_a_rule_is_told_so_that_a_person_finds_it(place: Namespace) -> None:
    place.rules(chain("tcp dport { 80, 6379 } counter"))
    watch = place.inside(Watch)
    (watcher,) = watch.all()
    handle = watcher.where.rpartition(" ")[2]
    assert f"# handle {handle}" in place.run("nft", "-a", "list", "chain", "inet", "t", "c")
    assert watcher.describe() == (
        f"nft inet t c, handle {handle}: counts packets; "
        "concerns connections with tcp dport { 80, 6379 }"
    )
    watch.close()


def test_a_tcx_program_at_lo_concerns_everything() -> None:
    program = [sys.executable, str(Path(__file__).with_name("tcx_program.py"))]
    with namespace() as place:  # of its own: the program stays until the namespace goes
        assert kinds(place) == set()
        command = [*place.prefix, *program]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = process.stdout.readline().strip()
            if said != "attached":
                pytest.skip(f"this kernel can't attach a tcx program: {said}")
            assert kinds(place) == {"bpf"}
            process.kill()


def test_who_may_not_read_rules_knows_that_it_can_not(place: Namespace) -> None:
    def look() -> bytes:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setuid(65534)
            os.write(write, str(Watch().blind).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(write)
        with os.fdopen(read, "rb") as said:
            return said.read()

    assert place.inside(look) == b"Operation not permitted"
