"""The hosts' only way out: a forward proxy to the servers that this machine itself gets packages from."""

import asyncio
import contextlib
import socket
import threading
from urllib.parse import urlsplit

_HEAD_LIMIT = 65536
_OWN = (b"proxy-", b"connection:", b"keep-alive:")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class PackageProxy:
    """Serves on a listening socket in a thread of its own, until `close`.

    A request to a server that is not in `allowed` is answered with 403. `open` can be set to False: then nothing
    gets through, as on a host without a route to packages.
    """

    def __init__(self, listener: socket.socket, allowed: set[tuple[str, int]]) -> None:
        self.open = True
        self._allowed = allowed
        self._listener = listener
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._client, sock=self._listener, limit=_HEAD_LIMIT))
        self._loop.run_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            head = await reader.readuntil(b"\r\n\r\n")
            await self._pass(head, (reader, writer))
        writer.close()

    async def _pass(self, head: bytes, client: Streams) -> None:
        request, *fields = head[:-4].split(b"\r\n")
        method, target, _ = request.decode("ascii").split(" ")
        tunnel = method == "CONNECT"
        url = urlsplit(f"//{target}" if tunnel else target)
        where = (url.hostname or "", url.port or 80)
        if not self.open or where not in self._allowed:
            client[1].write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        server = await asyncio.open_connection(*where)
        if tunnel:
            client[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            kept = [field for field in fields if not field.lower().startswith(_OWN)]
            # One request for each connection: the answer ends where the server closes.
            lines = [f"{method} {path} HTTP/1.1".encode(), *kept, b"Connection: close", b"", b""]
            server[1].write(b"\r\n".join(lines))
        up = asyncio.ensure_future(_copy(client[0], server[1]))
        down = asyncio.ensure_future(_copy(server[0], client[1]))
        if not tunnel:  # a client may close its half at once
            await down
        else:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        down.cancel()
        server[1].close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while block := await reader.read(1 << 18):
            writer.write(block)
            await writer.drain()
