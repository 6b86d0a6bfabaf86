"""An echo server as people write them in Python: echo_server.py asyncio|threads PORT|PATH. A path
is that of a unix socket."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def _serve_with_asyncio(where: str) -> None:
    if where.startswith("/"):
        server = await asyncio.start_unix_server(_echo, where)
    else:
        server = await asyncio.start_server(_echo, "127.0.0.1", int(where))
    await server.serve_forever()


def _echo_in_thread(connection: socket.socket) -> None:
    with connection:
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(65536):
            connection.sendall(data)


def _listener(where: str) -> socket.socket:
    if not where.startswith("/"):
        return socket.create_server(("127.0.0.1", int(where)))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(where)
    listener.listen()
    return listener


def _serve_with_threads(where: str) -> None:
    with _listener(where) as listener:
        while True:
            connection = listener.accept()[0]
            threading.Thread(target=_echo_in_thread, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1] == "asyncio":
        asyncio.run(_serve_with_asyncio(sys.argv[2]))
    else:
        _serve_with_threads(sys.argv[2])
