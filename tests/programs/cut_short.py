"""A thread sleeps in a send when another one ends the connection; then its peer hands it on.

    cut_short.py HOW      exit, shutwr or shutrdwr

Says whether the new holder gets all that was sent; knows nothing of loopfuse.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

from killed_peer import BARE, connection, warm
from mapped import has_a_segment

# More than TCP takes with nobody reading.
DATA = random.Random(1).randbytes(32 << 20)
SHUTS = {"shutwr": socket.SHUT_WR, "shutrdwr": socket.SHUT_RDWR}


class Sender(threading.Thread):
    """Sends more and more of DATA, which nobody reads, until that fails."""

    def __init__(self, s: socket.socket) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self._s = s

    def run(self) -> None:
        try:
            while True:
                self.sent += self._s.send(DATA[self.sent : self.sent + 10_000])
        except BrokenPipeError:
            pass

    def await_sleep(self) -> None:
        """Until it has got nowhere for a while."""
        before = -1
        while self.sent != before:
            before = self.sent
            time.sleep(0.3)


def end_under(s: socket.socket, write: int, how: str) -> None:
    """Says what was sent: when a thread sleeps for more, and when that is over."""
    sender = Sender(s)
    sender.start()
    sender.await_sleep()
    os.write(write, b"%d\n" % sender.sent)
    time.sleep(0.2)  # the peer reads a little
    if how == "exit":
        os._exit(0)
    s.shutdown(SHUTS[how])
    sender.join()
    os.write(write, b"%d\n" % sender.sent)
    signal.pause()


def main(how: str) -> None:
    s, child, read = connection("4", "c", lambda s, write: end_under(s, write, how))
    warm(s, leads=False)
    print("fused" if has_a_segment() else "plain", file=sys.stderr)
    with os.fdopen(read) as said:
        sent = int(said.readline())
        start = s.recv(1000)
        if how == "exit":
            os.waitpid(child, 0)
        else:
            sent = int(said.readline())
    done = subprocess.run(
        ["/bin/cat"], stdin=s.fileno(), env=BARE, stdout=subprocess.PIPE, check=True
    )
    got = start + done.stdout
    # Part of what the thread slept for may have gone before the exit, too.
    print(len(got) >= sent if how == "exit" else len(got) == sent, DATA.startswith(got))
    print(sent, len(got), file=sys.stderr)
    if how != "exit":
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
