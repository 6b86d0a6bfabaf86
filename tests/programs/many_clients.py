"""Four threads, each opening one connection after the other: many_clients.py PORT [EACH].

Thirty messages of random sizes per connection; every echo is compared.
"""

import random
import socket
import sys
import threading

THREADS, MESSAGES = 4, 30
EACH = int(sys.argv[2]) if len(sys.argv) > 2 else 250
done = []


def client() -> None:
    for _ in range(EACH):
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
            for _ in range(MESSAGES):
                message = random.randbytes(random.randrange(1, 900))
                connection.sendall(message)
                echo = b""
                while len(echo) < len(message):
                    echo += connection.recv(1000)
                assert echo == message[::-1]
        done.append(1)


threads = [threading.Thread(target=client) for _ in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(done), "ok")
