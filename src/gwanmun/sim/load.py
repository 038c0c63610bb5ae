"""Steady load on one address, counting every request that did not end as it should.

For promises of the kind "no request fails while this happens": keep-alive connections that ask again and again, and
reconnect where the server closed politely. A closed connection counts as a failure only if a request was under way on it.
"""

import asyncio
import ssl
import time
from collections import Counter
from dataclasses import dataclass, field

_ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """`request` is the whole request as bytes; `tls` with `server_name` where it is HTTPS."""

    address: str
    port: int
    request: bytes
    tls: ssl.SSLContext | None = None
    server_name: str | None = None


@dataclass(slots=True)
class Tally:
    """What became of the requests. `failures` counts by what went wrong."""

    answered: int = 0
    connections: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def http_request(method: str, host: str, path: str, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """An HTTP/1.1 request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Load:
    """`async with Load(target, connections=8) as tally:` asks on all connections until the block ends.

    `interval` is the least number of seconds from one request of a connection to its next: latencies can only be compared
    where as much is asked.
    """

    def __init__(
        self, target: Target, *, connections: int = 8, requests_per_connection: int | None = None, interval: float = 0.0
    ) -> None:
        self.target = target
        self.tally = Tally()
        self._connections = connections
        self._per_connection = requests_per_connection
        self._interval = interval
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def __aenter__(self) -> Tally:
        self._tasks = [asyncio.create_task(self._ask_on()) for _ in range(self._connections)]
        return self.tally

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def _ask_on(self) -> None:
        while not self._stopping:
            try:
                reader, writer = await asyncio.open_connection(
                    self.target.address, self.target.port, ssl=self.target.tls, server_hostname=self.target.server_name
                )
            except OSError as error:
                self.tally.failures[f"connect: {error}"] += 1
                await asyncio.sleep(0.01)  # do not spin on a closed port
                continue
            self.tally.connections += 1
            try:
                await self._use(reader, writer)
            except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
                self.tally.failures[f"{type(error).__name__}: {error}"] += 1
            finally:
                writer.close()

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = 0
        while not self._stopping and (self._per_connection is None or asked < self._per_connection):
            if reader.at_eof():
                return  # closed between requests: polite
            started = time.perf_counter()
            writer.write(self.target.request)
            await writer.drain()
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                status, keep = await _read_answer(reader)
            asked += 1
            self.tally.answered += 1
            self.tally.latencies.append(time.perf_counter() - started)
            self.tally.statuses[status] += 1
            if status != 200:
                self.tally.failures[f"status {status}"] += 1
            if not keep:
                return
            if self._interval:
                await asyncio.sleep(max(0.0, started + self._interval - time.perf_counter()))


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status, and whether the connection may be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    if fields.get("transfer-encoding") == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    else:
        await reader.readexactly(int(fields.get("content-length", "0")))
    return status, fields.get("connection") != "close"
