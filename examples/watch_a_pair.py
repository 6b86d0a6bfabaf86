"""Starts a server and a client of its own, waits until they are fused, and sends them back to TCP.

    python examples/watch_a_pair.py

Shows `environment`, `connections` and `defuse`. The two programs know nothing of loopfuse.
"""

import subprocess
import sys
import time

import loopfuse

SERVER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sock, _ = listener.accept()
while data := sock.recv(4096):
    sock.sendall(data)
"""

CLIENT = """
import socket, sys, time
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    sock.sendall(b"x")
    sock.recv(1)
    time.sleep(0.001)
"""


def connection_at(port: int) -> loopfuse.Connection | None:
    """What the broker knows of the connection to this server."""
    for connection in loopfuse.connections():
        if connection.server.port == port and connection.state != "closed":
            return connection
    return None


def wait_until(port: int, state: str, seconds: float = 20.0) -> loopfuse.Connection:
    """The connection, once it is in this state."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection = connection_at(port)
        if connection is not None and connection.state == state:
            return connection
        time.sleep(0.02)
    sys.exit(f"the connection did not become {state}; `loopfuse why :{port}` says why")


def main() -> None:
    fused = loopfuse.environment()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], env=fused, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    port = int(server.stdout.readline())
    client = subprocess.Popen([sys.executable, "-c", CLIENT, str(port)], env=fused)
    try:
        connection = wait_until(port, "fused")
        print(f"fused: {connection.client.pid} -> {connection.server.pid}")
        loopfuse.defuse(connection)
        connection = wait_until(port, "defused")
        print(f"defused: {connection.reason}")
    finally:
        for process in (client, server):
            process.kill()
            process.wait()
        server.stdout.close()


if __name__ == "__main__":
    try:
        main()
    except loopfuse.LoopfuseError as error:
        sys.exit(f"{error}")
