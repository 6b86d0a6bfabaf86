"""Holds N connections to an echo server, takes every descriptor it can get, goes on talking.

    fill.py PORT N ROUNDS

Prints, for each way to make a descriptor, how many it got before EMFILE: loopfuse must not
make that number smaller.
"""

import ctypes
import errno
import os
import select
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.fopen.restype = libc.opendir.restype = ctypes.c_void_p
libc.fclose.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]


def stdio():
    """fopen makes its descriptor inside the C library."""
    stream = libc.fopen(b"/dev/null", b"r")
    if not stream:
        raise OSError(ctypes.get_errno(), "fopen")
    return lambda: libc.fclose(stream)


def directory():
    stream = libc.opendir(b"/")
    if not stream:
        raise OSError(ctypes.get_errno(), "opendir")
    return lambda: libc.closedir(stream)


def numbers(*fds):
    return lambda: [os.close(fd) for fd in fds]


def accepted():
    """The connecting socket is closed at once, so that each costs one number."""
    with socket.create_connection(listener.getsockname()):
        fd, _ = listener._accept()
    return numbers(fd)


WAYS = {
    "open": lambda: numbers(os.open("/dev/null", os.O_RDONLY)),
    "dup": lambda: numbers(os.dup(0)),
    "socket": lambda: numbers(socket.socket().detach()),
    "accept": accepted,
    "pipe": lambda: numbers(*os.pipe()),
    "epoll": lambda: numbers(os.dup(select.epoll().fileno())),
    "fopen": stdio,
    "opendir": directory,
}


def talk(socks, rounds):
    for i in range(rounds):
        word = b"%07d\n" % i
        for s in socks:
            s.sendall(word)
        for s in socks:
            assert s.recv(8, socket.MSG_WAITALL) == word[::-1]


port, count, rounds = (int(a) for a in sys.argv[1:])
listener = socket.create_server(("127.0.0.1", 0))
socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
talk(socks, rounds)
for name, make in WAYS.items():
    undo = []
    try:
        while True:
            undo.append(make())
    except OSError as error:
        print(name, len(undo), errno.errorcode[error.errno], flush=True)
    talk(socks, 3)
    while undo:
        undo.pop()()
    talk(socks, 3)
for s in socks:
    s.close()
print("ok")
