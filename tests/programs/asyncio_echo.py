"""asyncio streams: asyncio_echo.py server|client PORT."""

import asyncio
import os
import sys

CONNECTIONS, MESSAGES = 20, 150
PORT = int(sys.argv[2])


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def ask(number: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    for i in range(MESSAGES):
        message = os.urandom(1 + (i * number * 37) % 50000)
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()


async def main() -> None:
    if sys.argv[1] == "server":
        await (await asyncio.start_server(echo, "127.0.0.1", PORT)).serve_forever()
    await asyncio.gather(*(ask(i + 1) for i in range(CONNECTIONS)))
    print(CONNECTIONS, "ok")


asyncio.run(main())
