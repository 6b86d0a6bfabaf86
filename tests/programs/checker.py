"""Talks to a server for some seconds and compares each byte: checker.py KIND PORT SEED SECONDS.

KIND is redis, memcached, http, echo or postgresql. Some threads open one connection after the
other, of 3 to 60 exchanges each. At the end it prints how many connections there were and how
many bytes were compared. Exit status 0: every byte was right; 3: the server has gone away; any
other is a finding.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

THREADS = 3
PATIENCE = 60.0
GONE = 3
KIND, PORT, SEED, SECONDS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])


class Gone(Exception):
    """The server does not answer any more."""


class Stream:
    """A connection, and the bytes of it that nobody has asked for yet."""

    def __init__(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE)

    def ask(self, question: bytes, answer: bytes) -> int:
        """Compares what comes back; the number of bytes that were."""
        sender = threading.Thread(target=self._send, args=(question,))
        if len(question) > 100_000:  # both may have more to say than buffers hold
            sender.start()
        else:
            self._send(question)
        for place in range(0, len(answer), 65536):
            expected = answer[place : place + 65536]
            got = self._take(len(expected))
            if got != expected:
                at = next(
                    i
                    for i, (one, other) in enumerate(zip(got, expected, strict=True))
                    if one != other
                )
                what = f"{got[at : at + 60]!r} for {expected[at : at + 60]!r}"
                raise AssertionError(f"wrong bytes behind {place + at} of {len(answer)}: {what}")
        if sender.ident:
            sender.join()
        return len(answer)

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except TimeoutError:
            raise
        except OSError:
            pass  # who receives will see it

    def _take(self, count: int) -> bytes:
        got = bytearray()
        while len(got) < count:
            data = self.socket.recv(count - len(got))
            if not data:
                raise Gone("end of file")
            got += data
        return bytes(got)

    def close(self) -> None:
        self.socket.close()


def some_bytes(rng: random.Random) -> bytes:
    """Mostly few, sometimes very many."""
    most = rng.choice(
        [20, 500, 500, 3000, 30_000, 200_000, 2_000_000 if rng.random() < 0.2 else 100]
    )
    return rng.randbytes(rng.randrange(1, most))


def key_of(number: int) -> bytes:
    """The same few in each run, lest the server's memory fill up: memcached then refuses."""
    return b"%s:%d" % (threading.current_thread().name.encode(), number % 5)


def redis(rng: random.Random) -> Iterator[int]:
    stream = Stream()
    for number in range(rng.randrange(3, 60)):
        key, value = key_of(number), some_bytes(rng)
        head = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n" % (len(key), key, len(value))
        yield stream.ask(head + value + b"\r\n", b"+OK\r\n")
        request = b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key)
        yield stream.ask(request, b"$%d\r\n%s\r\n" % (len(value), value))
    stream.close()


def memcached(rng: random.Random) -> Iterator[int]:
    stream = Stream()
    for number in range(rng.randrange(3, 60)):
        key, value = key_of(number), some_bytes(rng)[:900_000]
        yield stream.ask(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value), b"STORED\r\n")
        answer = b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(value), value)
        yield stream.ask(b"get %s\r\n" % key, answer)
    stream.close()


def echo(rng: random.Random) -> Iterator[int]:
    stream = Stream()
    for _ in range(rng.randrange(3, 60)):
        data = some_bytes(rng)
        yield stream.ask(data, data)
    stream.socket.shutdown(socket.SHUT_WR)
    assert stream.socket.recv(1) == b"", "bytes behind the last"
    stream.close()


def content(name: str) -> bytes:
    """What the web server has under this name, size-number."""
    size, number = name.split("-")
    return random.Random(int(number)).randbytes(int(size))


def http_get(rng: random.Random) -> Iterator[int]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=PATIENCE)
    names = os.environ["CHECKER_FILES"].split()
    for _ in range(rng.randrange(3, 60)):
        name = rng.choice(names)
        try:
            connection.request("GET", f"/{name}")
            answer = connection.getresponse()
            body = answer.read()
        except (http.client.HTTPException, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise Gone(repr(error)) from error
        assert answer.status == 200, answer.status
        assert body == WEB[name], f"wrong bytes of {name}"
        yield len(body)
    connection.close()


def postgresql(rng: random.Random) -> Iterator[int]:
    """The client is psql, which has one connection for all questions."""
    counts = [rng.choice([1, 10, 300, 5000]) for _ in range(rng.randrange(3, 60))]
    factor = rng.randrange(1, 1000)
    script = "".join(
        f"select string_agg(md5((i * {factor})::text), '') from generate_series(1, {count}) i;\n"
        for count in counts
    )
    answers = [
        "".join(hashlib.md5(str(i * factor).encode()).hexdigest() for i in range(1, count + 1))
        for count in counts
    ]
    command = ["psql", "-h", "127.0.0.1", "-p", str(PORT), "-U", "postgres", "-XAtq"]
    done = subprocess.run(
        [*command, "-v", "ON_ERROR_STOP=1", "postgres"],
        input=script,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode == 2 or "terminating connection" in done.stderr:
        assert all(answer.startswith(line) for line, answer in zip(lines, answers, strict=False))
        raise Gone(done.stderr.strip())
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert lines == answers, "wrong bytes"
    yield sum(map(len, answers))


def run(talk: Callable[[random.Random], Iterator[int]], number: int, until: float) -> None:
    rng = random.Random(SEED * 1000 + number)
    try:
        while time.monotonic() < until:
            for size in talk(rng):
                compared.append(size)
            connections.append(1)
    except (Gone, ConnectionError) as error:
        findings.append((GONE, repr(error)))
    except BaseException as error:
        findings.append((1, repr(error)))


compared: list[int] = []
connections: list[int] = []
findings: list[tuple[int, str]] = []
talks = {
    "redis": redis,
    "memcached": memcached,
    "http": http_get,
    "echo": echo,
    "postgresql": postgresql,
}
WEB = {name: content(name) for name in os.environ.get("CHECKER_FILES", "").split()}
end = time.monotonic() + SECONDS
threads = [
    threading.Thread(target=run, args=(talks[KIND], number, end), name=f"t{number}")
    for number in range(THREADS)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(connections), "connections,", sum(compared), "bytes", flush=True)
for _, what in findings:
    print(f"{KIND}: {what}", file=sys.stderr, flush=True)
sys.exit(min((status for status, _ in findings), default=0))
