"""Which rules of a network namespace look at payload that crosses its loopback device.

A fused connection's payload never meets the kernel's packet filters. Where a rule would have
counted, limited, queued, changed or refused it, loopfuse stands aside. The rules are read
from the kernel and *walked* with a packet of an established connection of which only some
things are known (its addresses, ports, device, that it is no SYN); what a rule asks beyond
that may or may not be so. docs/firewall.md has the table of what counts.

netlink      asking the kernel: requests, dumps, attributes
values       bytes of which some bits are known; how sure a match is
packet       such a packet
machine      one rule's registers, matches and effects
expressions  nftables' expressions as steps of the machine (loads, tests, statements)
xtables      the matches and targets of iptables
rules        tables, chains, sets, rules, whoever they were read from
nftables     reads nftables' rules (and iptables-nft's)
legacy       reads the tables of iptables-legacy
walk         follows a packet through the chains: which rules watch it
traffic      traffic control and XDP on the loopback device
bpf          eBPF programs at the loopback device that tc does not list
watch        all of it for one namespace, and when it changes
"""
