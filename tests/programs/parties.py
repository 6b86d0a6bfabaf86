"""Two parties of a TCP connection that act out one scenario and write a transcript.

    parties.py NAMES              print the scenarios' names
    parties.py NAME SIDE PORT LISTENER READ WRITE

SIDE is s (accepts from descriptor LISTENER) or c (connects to PORT). READ and WRITE are
pipes to the other party, for keeping in step. Knows nothing of loopfuse: run it plain and
fused and compare what it writes.
"""

import array
import ctypes
import errno
import fcntl
import hashlib
import os
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time

from mapped import has_a_segment

SCENARIOS = {}


def scenario(f):
    SCENARIOS[f.__name__] = f
    return f


def say(*a):
    print(*a, flush=True)


def attempt(f, *a):
    try:
        return f(*a)
    except OSError as e:
        return errno.errorcode[e.errno]


def read_to_end(s, size):
    data = b""
    while part := s.recv(size):
        data += part
    return data


def rounds(s, n, last=b"w"):
    for i in range(n):
        byte = last if i == n - 1 else b"w"
        s.sendall(byte)
        assert s.recv(1) == byte


def warm(s, side, p):
    """Rounds of one byte for as long as lazy pairing may take; the client ends them."""
    if side == "s":
        while (byte := s.recv(1)) == b"w":
            s.sendall(byte)
        s.sendall(byte)
        wait(p)  # a reset must not destroy the last of them
        return
    if "LD_PRELOAD" in os.environ:
        deadline = time.monotonic() + 10
        while not has_a_segment() and time.monotonic() < deadline:
            rounds(s, 20)
    rounds(s, 200, last=b"W")
    sync(p)


class Pipes:
    pass


FILE = os.environ.get("SCENARIO_FILE", "")


def sync(p, x=b"."):
    os.write(p.w, x)


def wait(p):
    return os.read(p.r, 1)


@scenario
def half_close(s, side, p):
    if side == "c":
        s.sendall(b"a" * 1000)
        s.shutdown(1)
        say("c", attempt(s.send, b"x"))
        say("c got", len(read_to_end(s, 100)))
    else:
        say("s got", len(read_to_end(s, 333)))
        s.sendall(b"b" * 500)
        say(attempt(s.recv, 1))
        s.close()


MUCH = 300_000  # more than TCP's window at that time


@scenario
def close_behind_much_that_is_unread(s, side, p):
    """Read after SHUT_RD, which makes TCP say end of stream whenever it has nothing, and open no
    window: how much comes is a matter of buffers."""
    most = 1_000_000
    if side == "c":
        wait(p)
        s.send(b"a" * most, socket.MSG_DONTWAIT)
        s.close()
        wait(p)
    else:
        s.shutdown(socket.SHUT_RD)
        sync(p)
        got, end = b"", time.monotonic() + 0.5
        while time.monotonic() < end:
            got = got + s.recv(65536)  # slower than the sender, who is to be gone meanwhile
        say("s got something, and nothing twice", 0 < len(got) <= most)
        sync(p)


@scenario
def fin_comes_while_some_is_unread(s, side, p):
    if side == "c":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 10))
        s.sendall(b"a" * MUCH)
        sync(p)
        start = time.monotonic()
        s.close()
        say("closed in time", time.monotonic() - start < 5)
        sync(p)
    else:
        wait(p)
        left = MUCH - 1000
        while left:
            left -= len(s.recv(left))
        poll = select.poll()
        poll.register(s, select.POLLRDHUP)
        say("poll", [bits for _, bits in poll.poll(8000)])
        wait(p)
        say("s got", len(read_to_end(s, 10000)))


@scenario
def close_unread(s, side, p):
    if side == "c":
        s.sendall(b"a" * 1000)
        sync(p)
        wait(p)
        time.sleep(0.05)
        say("c recv", attempt(s.recv, 10))
        say(attempt(s.recv, 10))
        say(attempt(s.send, b"x"))
        say(attempt(s.send, b"x"))
    else:
        wait(p)
        say(s.recv(10))
        s.close()
        sync(p)


@scenario
def close_read(s, side, p):
    signal.signal(signal.SIGPIPE, lambda *a: say("SIGPIPE"))
    if side == "c":
        s.sendall(b"a" * 10)
        wait(p)
        time.sleep(0.05)
        say("c recv", attempt(s.recv, 10))
        say(attempt(s.send, b"x"))
        time.sleep(0.05)
        say(attempt(s.send, b"x"))
        say(attempt(s.recv, 10))
        say(s.getsockopt(1, 4))
    else:
        say(s.recv(10))
        s.close()
        sync(p)


@scenario
def linger0(s, side, p):
    if side == "c":
        wait(p)
        time.sleep(0.05)
        say(attempt(s.recv, 10))
        say(attempt(s.recv, 10))
        say(attempt(s.send, b"x"))
    else:
        s.setsockopt(6, 1, 1)  # else Nagle's algorithm decides whether the bytes get out
        s.sendall(b"hello")
        time.sleep(0.1)  # or Nagle's algorithm may hold it back, and the reset destroys it
        s.setsockopt(1, 13, struct.pack("ii", 1, 0))
        s.close()
        sync(p)


@scenario
def kill_clean(s, side, p):
    if side == "c":
        wait(p)
        time.sleep(0.1)
        say(attempt(s.recv, 10))
        say(attempt(s.recv, 10))
        say(attempt(s.send, b"x"))
        time.sleep(0.05)
        say(attempt(s.send, b"x"))
    else:
        s.sendall(b"hello")
        sync(p)
        os.kill(os.getpid(), 9)


@scenario
def kill_unread(s, side, p):
    if side == "c":
        s.sendall(b"z" * 100)
        sync(p)
        wait(p)
        time.sleep(0.2)
        say(attempt(s.recv, 10))
        say(attempt(s.recv, 10))
        say(attempt(s.send, b"x"))
        say(attempt(s.send, b"x"))
    else:
        s.sendall(b"hello")
        wait(p)
        sync(p)
        os.kill(os.getpid(), 9)


@scenario
def kill_unread_blocked(s, side, p):
    if side == "c":
        s.sendall(b"z" * 100)
        sync(p)
        say(attempt(s.recv, 10))
        say(attempt(s.recv, 10))
        say(attempt(s.recv, 10))
    else:
        wait(p)
        time.sleep(0.1)
        os.kill(os.getpid(), 9)


@scenario
def exit_unread_poll(s, side, p):
    if side == "c":
        s.sendall(b"z" * 100)
        sync(p)
        po = select.poll()
        po.register(s, 1 | 0x2000)
        say([e for _, e in po.poll(3000)])
        say(s.getsockopt(1, 4))
        say(attempt(s.recv, 10))
        say(attempt(s.recv, 10))
    else:
        wait(p)
        time.sleep(0.1)
        os._exit(0)


@scenario
def blocked_send_kill(s, side, p):
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if side == "c":
        sync(p)
        try:
            n = s.sendall(b"z" * 50000000)
            say("sent?")
        except OSError as e:
            say(errno.errorcode[e.errno])
    else:
        wait(p)
        select.select([s], [], [])  # on a busy machine bytes take their time
        time.sleep(0.2)
        os.kill(os.getpid(), 9)


@scenario
def blocked_send_close(s, side, p):
    if side == "c":
        sync(p)
        try:
            n = s.sendall(b"z" * 50000000)
            say("sent?")
        except OSError as e:
            say(errno.errorcode[e.errno])
    else:
        wait(p)
        select.select([s], [], [])
        time.sleep(0.2)
        s.close()
        time.sleep(0.3)


@scenario
def flags(s, side, p):
    if side == "c":
        s.sendall(b"0123456789")
        wait(p)
        s.sendall(b"abc")
        time.sleep(0.1)
        s.sendall(b"defghij")
        wait(p)
        s.sendall(b"q" * 50)
        wait(p)
    else:
        time.sleep(0.05)
        say(s.recv(4, socket.MSG_PEEK))
        say(s.recv(10))
        say(attempt(s.recv, 10, socket.MSG_DONTWAIT))
        sync(p)
        say(s.recv(10, socket.MSG_WAITALL))
        sync(p)
        time.sleep(0.1)
        say(len(s.recv(20, socket.MSG_TRUNC)))  # the bytes are whatever lay there
        b = array.array("i", [0])
        fcntl.ioctl(s, termios.FIONREAD, b)
        say("fionread", b[0])
        say(s.recvmsg(5, 100))
        say(s.recvfrom(5))
        b1 = bytearray(3)
        b2 = bytearray(30)
        say(s.recvmsg_into([b1, b2]))
        say(s.recv(0))
        sync(p)


@scenario
def timeo(s, side, p):
    if side == "c":
        wait(p)
    else:
        s.setsockopt(1, 20, struct.pack("ll", 0, 100000))
        t = time.monotonic()
        say(attempt(s.recv, 10))
        say(0.09 < time.monotonic() - t < 5)  # a busy machine takes its time
        s.setsockopt(1, 21, struct.pack("ll", 0, 100000))
        n = 0
        try:
            while 1:
                n += s.send(b"x" * 100000)
        except OSError as e:
            say(errno.errorcode[e.errno])
            say(n > 0)
        sync(p)


@scenario
def nonblock_full(s, side, p):
    if side == "c":
        s.setblocking(False)
        say(attempt(s.recv, 1))
        n = 0
        try:
            while 1:
                n += s.send(b"x" * 10000)
        except BlockingIOError:
            say("full", n > 10000)
        po = select.poll()
        po.register(s, 5)
        say([e for _, e in po.poll(50)])
        say(select.select([s], [s], [s], 0.05) == ([], [], []))
        e = select.epoll()
        e.register(s, 5)
        say([v for _, v in e.poll(0.05)])
        os.write(p.w, struct.pack("q", n))
        wait(p)
        say([v for _, v in e.poll(1)])
        say([v for _, v in po.poll(1000)])
        say([len(x) for x in select.select([s], [s], [s], 1)])
        sync(p)
    else:
        s.setblocking(True)
        n = struct.unpack("q", os.read(p.r, 8))[0]
        g = 0
        while g < n:
            g += len(s.recv(65536))
        say("all", g == n)
        sync(p)
        wait(p)


@scenario
def epolls(s, side, p):
    if side == "c":
        for i in range(9):
            wait(p)
            s.sendall(b"abcd")
        wait(p)
        s.shutdown(1)
        wait(p)
        s.close()
        wait(p)
    else:
        E = select
        fd = s.fileno()
        e = E.epoll()
        e.register(s, E.EPOLLIN)
        go = lambda: (sync(p), time.sleep(0.1))
        ev = lambda t=0.1: [x for _, x in e.poll(t)]
        say("LT", ev())
        go()
        say(ev(), ev(0))
        say(s.recv(2))
        say(ev())
        say(s.recv(2))
        say(ev())
        e.modify(s, E.EPOLLIN | E.EPOLLET)
        say("ET", ev())
        go()
        say(ev(), ev(), ev(0))
        go()
        say(ev(), ev())
        say(s.recv(100))
        say(ev())
        e.modify(s, E.EPOLLIN | E.EPOLLOUT | E.EPOLLET | E.EPOLLRDHUP)
        say("ETO", ev(), ev())
        go()
        say(ev(), ev())
        say(s.recv(100))
        say(ev())
        e.modify(s, E.EPOLLIN | E.EPOLLONESHOT)
        go()
        say("OS", ev(), ev())
        go()
        say(ev())
        e.modify(s, E.EPOLLIN | E.EPOLLONESHOT)
        say(ev(), ev())
        s.recv(100)
        e.modify(s, E.EPOLLOUT)
        say(ev(), ev())
        e.modify(s, 0)
        say(ev())
        go()
        say(ev())
        e.modify(s, E.EPOLLIN | E.EPOLLRDHUP)
        say(ev(), s.recv(100))
        go()
        say(ev())
        s.recv(100)
        d = s.dup()
        s2 = d
        go()
        say(ev())
        s.recv(10)
        go()
        say(select.select([d], [d], [], 1) == ([d], [d], []))
        s.recv(100)
        go()
        say(ev())
        say(s.recv(10))
        say(ev())
        e.unregister(s)
        e.register(s, E.EPOLLIN | E.EPOLLOUT | E.EPOLLRDHUP)
        say(ev())
        time.sleep(0.1)
        say(ev())


@scenario
def epoll_churn(s, side, p):
    """Entries deleted, added, masked and moved, with bytes and FIN arriving in between."""
    if side == "c":
        for _ in range(5):
            wait(p)
            s.sendall(b"abcd")
        wait(p)
        s.shutdown(1)
        wait(p)
        s.close()
        return
    e, other = select.epoll(), select.epoll()
    go = lambda: (sync(p), time.sleep(0.1))
    ev = lambda t=0.1: [x for _, x in e.poll(t)]
    e.register(s, select.EPOLLIN)
    say("idle", ev())
    e.unregister(s)
    go()
    say("deleted", ev(), ev(0), attempt(e.modify, s, 1), attempt(e.unregister, s))
    e.register(s, select.EPOLLIN)
    say("added", ev(), ev(0), attempt(e.register, s, 1), s.recv(4))
    e.modify(s, 0)
    go()
    say("masked", ev(), ev(0))
    e.modify(s, select.EPOLLOUT)
    say("out", ev(), ev(0))
    e.modify(s, select.EPOLLIN | select.EPOLLOUT)
    say("both", ev(), s.recv(4))
    e.unregister(s)
    other.register(s, select.EPOLLIN)
    go()
    say("moved", ev(), [x for _, x in other.poll(0.1)], s.recv(4))
    other.unregister(s)
    e.register(s, select.EPOLLIN | select.EPOLLONESHOT)
    go()
    say("oneshot", ev(), ev())
    e.modify(s, select.EPOLLIN | select.EPOLLONESHOT)
    say("again", ev(), ev(), s.recv(4))
    e.unregister(s)
    say("gone", attempt(e.modify, s, 1), ev())
    e.register(s, select.EPOLLIN)
    time.sleep(0.05)
    go()
    say("back", ev(), s.recv(4), ev())
    e.unregister(s)
    e.register(s, select.EPOLLOUT)
    go()
    say("fin unwanted", ev(), ev(0))
    e.modify(s, select.EPOLLRDHUP)
    say("fin", ev(), ev(0))
    e.unregister(s)
    go()
    say("deleted", ev(), ev(0))
    d = s.dup()
    e.register(s, select.EPOLLIN)
    e.unregister(s)
    s.close()
    say("closed", ev(), ev(0), d.recv(10))


@scenario
def epoll_watched_by_others(s, side, p):
    """poll, select and another epoll set on an epoll descriptor: the kernel alone looks."""
    if side == "c":
        for _ in range(5):
            wait(p)
            time.sleep(0.1)
            s.sendall(b"abcd")
        wait(p)
        return
    inner, outer = select.epoll(), select.epoll()
    inner.register(s, select.EPOLLIN)
    say([x for _, x in inner.poll(0.05)])
    poller = select.poll()
    poller.register(inner, 1)
    sync(p)
    say([x for _, x in poller.poll(5000)], [x for _, x in inner.poll(0)], s.recv(4))
    say([x for _, x in poller.poll(50)])
    sync(p)
    say(len(select.select([inner], [], [], 5)[0]), s.recv(4))
    outer.register(inner, select.EPOLLIN)
    sync(p)
    say([x for _, x in outer.poll(5)], [x for _, x in inner.poll(0)], s.recv(4))
    inner.modify(s, 0)
    sync(p)
    say([x for _, x in outer.poll(0.3)], s.recv(4))
    inner.unregister(s)
    sync(p)
    say([x for _, x in outer.poll(0.3)], s.recv(4))
    sync(p)


@scenario
def epoll_fork_closes(s, side, p):
    """A child that closes what it inherited must not deafen the parent's set."""
    if side == "c":
        for _ in range(3):
            wait(p)
            time.sleep(0.1)
            s.sendall(b"abcd")
        wait(p)
        return
    e = select.epoll()
    e.register(s, select.EPOLLIN)
    say([x for _, x in e.poll(0.05)])
    for way in (0, 1, 2):
        child = os.fork()
        if child == 0:
            if way == 1:
                e.close()
            if way != 2:
                s.close()
            os._exit(0)
        os.waitpid(child, 0)
        sync(p)
        say([x for _, x in e.poll(5)], s.recv(10))
    sync(p)


libc = ctypes.CDLL(None, use_errno=True)


@scenario
def past_the_library(s, side, p):
    """What the C library writes by itself must not overtake, nor be overtaken."""
    if side == "c":
        data = b""
        while part := s.recv(65536):
            data += part
            time.sleep(0.001)
        say(len(data), hashlib.md5(data).hexdigest())
    else:
        for i in range(200):
            s.sendall(b"%d " % i)
            libc.dprintf(s.fileno(), b"%s", b"printed ")
            iov = (ctypes.c_char_p * 2)(b"vector", None)
            vector = struct.pack("PP", ctypes.cast(iov, ctypes.POINTER(ctypes.c_void_p))[0], 6)
            libc.pwritev2(s.fileno(), vector, 1, ctypes.c_long(-1), 0)
        s.sendall(b"end")
        s.close()


@scenario
def control_data(s, side, p):
    """A message with control data is the kernel's to send; the order stays."""
    if side == "c":
        sync(p)
        say(read_to_end(s, 65536))
    else:
        wait(p)
        s.sendall(b"ring ")
        nothing = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i"))]
        say(attempt(s.sendmsg, [b"with "], nothing))
        s.sendall(b"ring again ")
        # SOL_SOCKET, SO_TIMESTAMPING: ask for no timestamp at all
        say(attempt(s.sendmsg, [b"stamped "], [(1, 37, struct.pack("I", 0))]))
        s.sendall(b"last")
        s.close()


@scenario
def number_used_again(s, side, p):
    """A socket closed past libc's close, and a file that gets its number."""
    if side == "c":
        sync(p)
        say(s.recv(10), s.recv(10))
        wait(p)
    else:
        wait(p)
        s.sendall(b"bye")
        fd = s.fileno()
        libc.syscall(3, fd)
        file = os.open("/etc/hostname", os.O_RDONLY)
        say(file == fd, len(os.read(file, 1000)) > 0, attempt(os.lseek, file, 0, 0))
        os.close(file)
        say(attempt(os.read, file, 1))
        pair = os.pipe()
        os.write(pair[1], b"piped")
        say(os.read(pair[0], 10))
        s.detach()
        sync(p)


@scenario
def stdio_stream(s, side, p):
    """fdopen, fprintf, fclose: the number is free again afterwards."""
    if side == "c":
        sync(p)
        say(read_to_end(s, 100))
        wait(p)
    else:
        wait(p)
        s.sendall(b"first ")
        libc.fdopen.restype = ctypes.c_void_p
        fd = s.detach()
        stream = ctypes.c_void_p(libc.fdopen(fd, b"r+"))
        libc.fprintf(stream, b"%d through stdio", 42)
        libc.fclose(stream)
        file = os.open("/etc/hostname", os.O_RDONLY)
        say(file == fd, len(os.read(file, 1000)) > 0)
        os.close(file)
        sync(p)


@scenario
def as_standard_output(s, side, p):
    """dup2 to 1, then printf, as a CGI program does without exec."""
    if side == "c":
        sync(p)
        say(read_to_end(s, 100))
        wait(p)
    else:
        wait(p)
        s.sendall(b"header ")
        kept = os.dup(1)
        os.dup2(s.fileno(), 1)
        libc.printf(b"printed %d ", 7)
        libc.fflush(None)
        os.write(1, b"written ")
        s.sendall(b"sent")
        os.dup2(kept, 1)
        s.close()
        sync(p)


@scenario
def dissolved(s, side, p):
    """connect() to AF_UNSPEC takes a connection apart."""
    if side == "c":
        s.sendall(b"abc")
        sync(p)
        wait(p)
        say(libc.connect(s.fileno(), struct.pack("H14x", 0), 16))
        say(attempt(s.send, b"x"), attempt(s.getpeername))
        sync(p)
    else:
        wait(p)
        say(s.recv(10))
        sync(p)
        wait(p)
        say(attempt(s.recv, 10), attempt(s.send, b"x"))


@scenario
def threads_recv(s, side, p):
    if side == "c":
        wait(p)
        time.sleep(0.1)
        s.sendall(b"1")
        time.sleep(0.1)
        s.sendall(b"2")
        wait(p)
    else:
        L = []

        def r():
            L.append(s.recv(1))

        a = [threading.Thread(target=r) for _ in range(2)]
        for x in a:
            x.start()
        sync(p)
        for x in a:
            x.join(5)
        say(sorted(L))
        sync(p)


@scenario
def fork_share(s, side, p):
    if side == "c":
        for i in range(20):
            s.sendall(b"%02d" % i)
            say(s.recv(2))
    else:
        pid = os.fork()
        for i in range(10):
            if pid == 0:
                d = s.recv(2)
                s.sendall(d[::-1])
                os.write(p.lw, b"x")
                os.read(p.lr2, 1)
            else:
                os.read(p.lr, 1)
                d = s.recv(2)
                s.sendall(d[::-1])
                os.write(p.lw2, b"x")
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


@scenario
def dup2_onto(s, side, p):
    if side == "c":
        say(attempt(s.recv, 10))
        say(attempt(s.recv, 10))
    else:
        s.sendall(b"bye")
        f = os.open("/dev/null", 0)
        os.dup2(f, s.fileno())
        say(os.read(s.fileno(), 1))
        say(os.open("/dev/null", 0) == f + 1)
        time.sleep(0.2)


@scenario
def close_other_thread(s, side, p):
    if side == "c":
        wait(p)
    else:

        def sh():
            time.sleep(0.1)
            s.shutdown(2)

        threading.Thread(target=sh).start()
        say(attempt(s.recv, 1))
        sync(p)


@scenario
def exec_keep(s, side, p):
    if side == "c":
        s.sendall(b"unread bytes\n")
        sync(p)
        say(s.recv(100))
        say(s.recv(100))
        wait(p)
    else:
        wait(p)
        os.set_inheritable(s.fileno(), True)
        os.dup2(s.fileno(), 0)
        os.dup2(s.fileno(), 1)
        s.sendall(b"pre\n")
        time.sleep(0.05)
        os.execvp("head", ["head", "-n", "1"])


@scenario
def scm(s, side, p):
    if side == "c":
        s.sendall(b"unread")
        sync(p)
        say(s.recv(100))
        wait(p)
    else:
        wait(p)
        a, b = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            a.close()
            s.close()
            m, f, _, _ = socket.recv_fds(b, 10, 1)
            t = socket.socket(fileno=f[0])
            d = t.recv(100)
            t.sendall(d * 2)
            os._exit(0)
        b.close()
        socket.send_fds(a, [b"x"], [s.fileno()])
        s.close()
        os.waitpid(pid, 0)
        sync(p)


@scenario
def eintr(s, side, p):
    libc = ctypes.CDLL(None, use_errno=True)
    if side == "c":
        wait(p)
        time.sleep(0.3)
        s.sendall(b"x")
        wait(p)
        time.sleep(0.3)
        s.sendall(b"y")
        wait(p)
    else:
        h = []
        signal.signal(signal.SIGALRM, lambda *a: h.append(1))
        b = ctypes.create_string_buffer(10)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(0, 0.1)
        sync(p)
        r = libc.recv(s.fileno(), b, 10, 0)
        say("restart", r, b.value)
        signal.siginterrupt(signal.SIGALRM, True)
        signal.setitimer(0, 0.1)
        sync(p)
        r = libc.recv(s.fileno(), b, 10, 0)
        say("intr", r, ctypes.get_errno() if r < 0 else 0)
        r = libc.recv(s.fileno(), b, 10, 0)
        say(r)
        sync(p)


@scenario
def oob(s, side, p):
    if side == "c":
        s.sendall(b"before")
        s.send(b"!", socket.MSG_OOB)
        s.sendall(b"after")
        sync(p)
        wait(p)
    else:
        wait(p)
        time.sleep(0.1)
        d = s.recv(100)
        say(d)
        say(attempt(s.recv, 1, socket.MSG_OOB))
        say(s.recv(100))
        sync(p)


@scenario
def sendfile(s, side, p):
    if side == "c":
        d = b""
        while len(d) < 3000000:
            r = s.recv(65536)
            if not r:
                break
            d += r
        say(len(d), hashlib.md5(d).hexdigest())
    else:
        with open(FILE, "wb") as f:
            f.write(bytes(range(256)) * 12000)
        f = open(FILE, "rb")
        o = 0
        while o < 3000000:
            n = os.sendfile(s.fileno(), f.fileno(), o, 3000000 - o)
            o += n
        say(o)
        s.close()


@scenario
def splices(s, side, p):
    r, w = os.pipe()
    if side == "c":
        os.write(w, b"through a pipe")
        say(os.splice(r, s.fileno(), 100))
        wait(p)
    else:
        n = os.splice(s.fileno(), w, 100)
        say(n, os.read(r, 100))
        sync(p)


@scenario
def fin_mid(s, side, p):
    if side == "c":
        s.sendall(b"k" * 100000)
        s.close()
    else:
        say(len(read_to_end(s, 1000)))


@scenario
def poll_states(s, side, p):
    if side == "s":
        time.sleep(0.5)
    po = select.poll()
    po.register(s, 1 | 4 | 2 | 0x2000)
    ev = lambda t=200: [x for _, x in po.poll(t)]
    if side == "c":
        say(ev())
        wait(p)
        time.sleep(0.1)
        say(ev())
        say(s.recv(10))
        sync(p)
        wait(p)
        time.sleep(0.1)
        say(ev())
        s.shutdown(1)
        say(ev())
        sync(p)
        wait(p)
        time.sleep(0.1)
        say(ev())
    else:
        s.sendall(b"x")
        sync(p)
        wait(p)
        s.shutdown(1)
        sync(p)
        wait(p)
        s.close()
        sync(p)


@scenario
def closefrom(s, side, p):
    if side == "c":
        wait(p)
        s.sendall(b"still")
        say(s.recv(10))
    else:
        fd = os.dup2(s.fileno(), 3) if s.fileno() != 3 else 3
        r, w = os.dup(p.r), os.dup(p.w)
        os.closerange(max(r, w) + 1, 20000)
        os.write(w, b".")
        say(s.recv(10))
        s.sendall(b"ok")


def main():
    if sys.argv[1] == "NAMES":
        print(*SCENARIOS)
        return
    name, side = sys.argv[1:3]
    port, listener, read, write = map(int, sys.argv[3:7])
    p = Pipes()
    p.r, p.w = read, write
    p.lr, p.lw = os.pipe()
    p.lr2, p.lw2 = os.pipe()
    if side == "s":
        with socket.socket(fileno=listener) as l:
            s, _ = l.accept()
    else:
        s = socket.create_connection(("127.0.0.1", port))
    if os.environ.get("WARM") == "1":
        warm(s, side, p)
    SCENARIOS[name](s, side, p)


if __name__ == "__main__":
    main()
