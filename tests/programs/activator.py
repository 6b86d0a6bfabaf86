"""Socket activation, as systemd does it.

    activator.py PORT listener|connection PROGRAM ARGUMENT...

Waits for a connection, then becomes PROGRAM, with the listener or the connection as
descriptor 3 and LISTEN_FDS in its environment.
"""

import os
import select
import socket
import sys


def main():
    port, what = int(sys.argv[1]), sys.argv[2]
    with socket.create_server(("127.0.0.1", port)) as listener:
        select.select([listener], [], [])
        handed = listener.accept()[0] if what == "connection" else listener
        os.dup2(handed.fileno(), 3)
        os.set_inheritable(3, True)  # it may have been 3 before
        environment = os.environ | {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
        os.execve(sys.argv[3], sys.argv[3:], environment)


if __name__ == "__main__":
    main()
