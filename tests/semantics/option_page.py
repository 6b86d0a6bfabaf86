"""Writes docs/semantics/options.md from the table: `python -m semantics.option_page` in tests/."""

from __future__ import annotations

from pathlib import Path

from semantics.option_table import IP, IPV6, OPTIONS, SOL_SOCKET, TCP, Option

PAGE = Path(__file__).parent.parent.parent / "docs" / "semantics" / "options.md"

HEAD = """\
# Socket options and queries

Written from `tests/semantics/option_table.py` by `python -m semantics.option_page` (in `tests/`);
a test fails if this page is stale, another if the kernel's headers know an option that it lacks.

- **passed through**: the kernel's alone. What it governs (the handshake, packets, other kinds of
  socket) is as on plain TCP, and payload is not concerned.
- **honoured by the ring**: the library keeps to it too.
- **leads to plain TCP**: the connection is not fused, or not any more, and `loopfuse ps` says
  `socket-option`. Only a value that asks for something does that, and only if the kernel took it.

Each row is acted out by `test_a_program_that_sets_it_sees_no_difference[NAME]` in
`tests/semantics/test_option_table.py`: one program, plain and fused, sets the option before
`connect` and on the listener, at the accepted end before pairing, and at the connecting end once
fused; results, errors and values must be the same, and the payload must have gone the way that the
row says. Where the kernel refuses the option (kTLS or TCP-AO that it lacks), the connection stays
fused, and the test of a row that should lead to plain TCP says so and skips. Further tests are
named in the row. `_OLD` and `_NEW` stand for the two layouts of a time:
the name without them is the first on 64-bit machines.
"""

SECTIONS = {
    SOL_SOCKET: "SOL_SOCKET",
    IP: "IPPROTO_IP",
    IPV6: "IPPROTO_IPV6",
    TCP: "IPPROTO_TCP",
}

TAIL = """
## Queries and signals

Tests: `tests/semantics/test_queries.py` and `tests/semantics/test_limits.py`. Up to as many unread
bytes as the peer's receive buffer would hold count as received by it, the others as unsent: with
`SO_RCVBUF` set, half of what `getsockopt` reports; else three eighths of the ring.

| query | class | answer | test |
|---|---|---|---|
| `FIONREAD` (`SIOCINQ`) | honoured by the ring | TCP's unread bytes and the ring's | \
test_unread_bytes_are_counted_wherever_they_lie |
| `SIOCOUTQ`, `SIOCOUTQNSD` | honoured by the ring | TCP's, and the ring's that count as unsent | \
test_bytes_beyond_the_peers_buffer_count_as_unsent |
| `SIOCATMARK`, `sockatmark` | honoured by the ring | not at the mark while ring bytes come before \
it | test_the_urgent_mark_comes_after_ring_bytes |
| `FIONBIO`, `O_NONBLOCK` by `F_SETFL` | honoured by the ring | | test_non_blocking_is_obeyed |
| `FIOASYNC`, `O_ASYNC` by `F_SETFL` | leads to plain TCP | SIGIO is the kernel's | \
test_sigio_comes_for_every_byte |
| `FIOSETOWN`, `SIOCSPGRP`, `F_SETOWN`, `F_SETOWN_EX`, `F_SETSIG` | passed through | matter with \
`O_ASYNC` only | test_the_owner_of_signals_is_the_kernels_to_know |
| `SIOCGSTAMP`, `SIOCGSTAMPNS` | passed through | of the last packet, if `SO_TIMESTAMP` is on | \
test_the_time_of_the_last_packet_is_the_kernels |
| `MSG_ERRQUEUE` | passed through | | test_the_error_queue_is_the_kernels |
| `TCP_INFO`, `SO_ERROR` | honoured by the ring | see above | see above |

## Known differences

- `TCP_WINDOW_CLAMP` does not bound the ring. `SO_MEMINFO` and `tcpi_unacked`, `tcpi_segs_*`,
  `tcpi_last_data_*`, `tcpi_delivery_rate` and the like do not know of ring bytes.
- `SO_LINGER` with a time: on plain TCP, close waits while bytes don't find room in the peer's
  receive buffer. Those in the ring are with the peer, so it does not wait for them.
- Corked bytes (`TCP_CORK`, `MSG_MORE`) are seen once there are 65,483 of them, what a segment
  holds on `lo`, or half of what may lie unread. Where segments are smaller, TCP sends as many as
  fit sooner. A peer that closes with
  none but such bytes unread resets the connection; TCP has them still to send.
- `TCP_INQ` does not count FIN behind bytes that are left, as TCP does, nor what is behind urgent
  data.
- `TCP_USER_TIMEOUT` starts to count when bytes no longer find room, as on plain TCP, but where the
  peer set no `SO_RCVBUF` that is later: TCP's window is smaller until its reader has been busy.
- IPsec policies, and MD5 keys, that a socket has from its listener can't be asked for.
- A negative `SO_RCVTIMEO` or `SO_SNDTIMEO` (never wait) that was set on the listener reads back
  as none, and is taken so.
- Before Linux 5.17 (`SO_BUF_LOCK`) a buffer size set before `connect` or on the listener does not
  bound the ring.
"""


def line(option: Option) -> str:
    tests = ", ".join([f"[{option.name}]", *option.tests])
    cells = (f"`{option.name}`", str(option.number), option.treatment.value, option.note, tests)
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    parts = [HEAD]
    for level, title in SECTIONS.items():
        parts.append(
            f"\n## {title}\n\n| option | number | class | remark | test |\n|---|---|---|---|---|\n"
        )
        options = sorted(
            (option for option in OPTIONS if option.level == level), key=lambda o: o.number
        )
        parts += [line(option) + "\n" for option in options]
    return "".join([*parts, TAIL])


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
