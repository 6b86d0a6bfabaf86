"""A signal whose handler does not restart calls ends a send that waits, whenever it comes."""

from __future__ import annotations

import sys

from sessions import Session, free_port

ROUNDS = 100

PROGRAM = """
import signal, socket, sys, threading, time
rounds, port = int(sys.argv[1]), int(sys.argv[2])
with socket.create_server(("127.0.0.1", port)) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
def fused():
    with open("/proc/self/maps") as maps:
        return "loopfuse-segment" in maps.read()

# On a busy machine the broker takes its time, and who waits in send looks for no answer.
deadline = time.monotonic() + 10
while True:
    over = fused() or time.monotonic() > deadline
    for _ in range(40):
        client.send(b"x"), server.recv(1), server.send(b"y"), client.recv(1)
    if over:
        break

class Interrupted(Exception):
    pass

def handler(number, frame):
    raise Interrupted

signal.signal(signal.SIGUSR1, handler)
signal.signal(signal.SIGALRM, lambda number, frame: sys.exit("it slept on"))
big = memoryview(bytes(64 << 20))
me = threading.get_ident()
for i in range(rounds):
    # The sleeping writer wakes every 20 ms; the signals come all around that.
    delay = 0.030 + 0.020 * i / rounds
    timer = threading.Thread(target=lambda: (time.sleep(delay), signal.pthread_kill(me, 10)))
    timer.start()
    signal.alarm(10)
    try:
        while True:
            client.send(big)
    except Interrupted:
        pass
    signal.alarm(0)
    timer.join()
print("interrupted each time")
"""


def test_a_waiting_send_is_interrupted_at_any_moment(fused: Session) -> None:
    port = free_port()
    command = [*fused.prefix, sys.executable, "-c", PROGRAM, str(ROUNDS), str(port)]
    assert fused.run(command).stdout == "interrupted each time\n"
    assert fused.fused_rows(port)
