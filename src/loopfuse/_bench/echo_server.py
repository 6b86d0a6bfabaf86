"""An echo server as people write them in Python: echo_server.py asyncio|threads PORT."""

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


async def _serve_with_asyncio(port: int) -> None:
    await (await asyncio.start_server(_echo, "127.0.0.1", port)).serve_forever()


def _echo_in_thread(connection: socket.socket) -> None:
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(65536):
            connection.sendall(data)


def _serve_with_threads(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection = listener.accept()[0]
            threading.Thread(target=_echo_in_thread, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    if sys.argv[1] == "asyncio":
        asyncio.run(_serve_with_asyncio(int(sys.argv[2])))
    else:
        _serve_with_threads(int(sys.argv[2]))
