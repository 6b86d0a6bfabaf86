"""Eager first sends wait for the other end; not for long where the program would not wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker_fixtures import eventually
from sessions import Session, free_port, listens, stop_group

IN_VAIN_MS = 20000
QUICK = 10.0
"""Seconds: far from both, on a busy machine too."""

IDLE = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(60)
"""

CLIENT = """
import select, socket, sys, time
s = socket.socket()
if sys.argv[2] == "before connect":
    s.setblocking(False)
s.connect_ex(("127.0.0.1", int(sys.argv[1])))
select.select([], [s], [])
if sys.argv[2] == "after connect":
    s.setblocking(False)
begin = time.monotonic()
s.send(b"x", socket.MSG_DONTWAIT if sys.argv[2] == "by flag" else 0)
print(time.monotonic() - begin)
"""


@pytest.mark.parametrize("nonblocking", ["before connect", "after connect", "by flag"])
def test_a_nonblocking_send_does_not_wait_for_a_busy_server(
    nonblocking: str, eagerly_fused: Session
) -> None:
    eagerly_fused.environment["LOOPFUSE_EAGER_WAIT_MS"] = str(IN_VAIN_MS)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", IDLE, str(port)],
        env=eagerly_fused.environment,
        start_new_session=True,
    )
    try:
        eventually(lambda: listens(port), "it listens")
        command = [sys.executable, "-c", CLIENT, str(port), nonblocking]
        assert float(eagerly_fused.run(command).stdout) < QUICK
    finally:
        stop_group(server)


TWO_THREADS = """
import socket, sys, threading, time
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    took = []
    def write():
        with socket.create_connection(listener.getsockname()) as client:
            begin = time.monotonic()
            client.send(b"abc")
            took.append(time.monotonic() - begin)
    thread = threading.Thread(target=write)
    thread.start()
    server, _ = listener.accept()
    server.settimeout(10)  # which has it sleep in poll
    assert server.recv(3) == b"abc"
    thread.join()
print(took[0])
"""


def test_two_threads_that_meet_the_broker_at_once_do_not_wait_in_vain(
    eagerly_fused: Session,
) -> None:
    """Each claims one end of the process's first connection."""
    eagerly_fused.environment["LOOPFUSE_EAGER_WAIT_MS"] = str(IN_VAIN_MS)
    for _ in range(10):
        command = [sys.executable, "-c", TWO_THREADS, str(free_port())]
        assert float(eagerly_fused.run(command).stdout) < QUICK
