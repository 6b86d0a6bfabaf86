"""A process that has many connections is killed while each of them is full: killed_many.py EVENT...

Says what one epoll set tells of them.
"""

import collections
import os
import select
import signal
import socket
import sys
import time

MANY = 150
events = 0
for name in sys.argv[1:]:
    events |= getattr(select, name)

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
listener.bind(("127.0.0.1", 0))
listener.listen(MANY)
warm_read, warm = os.pipe()


def talk(ends: list[socket.socket], first: bool) -> None:
    for i in range(24):
        for end in ends:
            if first:
                end.send(b"x")
            end.recv(1)
            if not first:
                end.send(b"x")
        if i == 12:
            time.sleep(0.5)


client = os.fork()
if client == 0:
    theirs = [socket.create_connection(listener.getsockname()) for _ in range(MANY)]
    talk(theirs, True)
    os.write(warm, b"x")
    signal.pause()
ours = [listener.accept()[0] for _ in range(MANY)]
talk(ours, False)
os.read(warm_read, 1)
waiting = select.epoll()
for end in ours:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)
    end.setblocking(False)
for _ in range(3):
    for end in ours:
        try:
            while end.send(bytes(65536)):
                pass
        except BlockingIOError:
            pass
    time.sleep(0.1)
for end in ours:
    waiting.register(end, events)
print("full:", len(waiting.poll(0.2, 2 * MANY)))
os.kill(client, signal.SIGKILL)
os.waitpid(client, 0)
time.sleep(0.3)
told: collections.Counter[int] = collections.Counter()
end_of_patience = time.monotonic() + 5
while told.total() < MANY and time.monotonic() < end_of_patience:
    for number, bits in waiting.poll(0.5, 2 * MANY):
        told[bits] += 1
        waiting.unregister(number)
print({hex(bits): count for bits, count in told.items()})
