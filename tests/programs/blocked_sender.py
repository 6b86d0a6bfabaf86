"""A sender that a signal is to interrupt, whenever that comes."""

import signal
import socket
import sys
import threading
import time

from mapped import has_a_segment

rounds, port = int(sys.argv[1]), int(sys.argv[2])
with socket.create_server(("127.0.0.1", port)) as listener:
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
# On a busy machine the broker takes its time, and who waits in send looks for no answer.
deadline = time.monotonic() + 10
while True:
    over = has_a_segment() or time.monotonic() > deadline
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
    timer = threading.Timer(delay, signal.pthread_kill, (me, signal.SIGUSR1))
    signal.alarm(10)
    try:
        timer.start()  # within: on a busy machine it may last until the signal
        while True:
            client.send(big)
    except Interrupted:
        pass
    signal.alarm(0)
    timer.join()
print("interrupted each time")
