"""A proxy in front of the API server that makes trouble on demand: late, refused, torn or held answers, broken connections.

It speaks plain HTTP on the cluster's loopback and passes on who asks. Every request has a connection of its own to the API
server, which ends with the answer; that keeps it as simple as it is. It runs in a thread, in the cluster's network.
"""

import asyncio
import contextlib
import json
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from socket import SO_LINGER, SOL_SOCKET
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.cluster.pki import API_SERVER

_HELD_AT_MOST_S = 30.0


class Asked(NamedTuple):
    """A request. `target` is its path with the query."""

    method: str
    target: str

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def watches(self) -> bool:
        return "watch=true" in self.target


@dataclass(frozen=True)
class Late:
    """The request is passed on after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Torn:
    """The connection breaks after so many bytes of the answer."""

    after: int


@dataclass(frozen=True)
class Instead:
    """The API server is not asked; this is the answer."""

    answer: bytes


@dataclass(frozen=True)
class Held:
    """The request waits: `reached` says that it is there, `opened` lets it go on."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)


Trouble = Late | Torn | Instead | Held


def response(status: str, body: str, *, kind: str = "application/json", headers: str = "") -> bytes:
    """A whole answer, after which the connection ends."""
    content = body.encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n{headers}\r\n"
    return head.encode() + content


def failure(code: int, reason: str, message: str) -> dict[str, object]:
    """How the API server says no."""
    return {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


EXPIRED = response(
    "200 OK",
    json.dumps({"type": "ERROR", "object": failure(410, "Expired", "too old resource version: 1 (2)")}) + "\n",
)
"""A watch from a version that the API server has forgotten."""


class Front:
    """`trouble` is asked about each request, in another thread; None passes it on. `asked` are all requests so far."""

    def __init__(self, port: int) -> None:
        self.server = f"http://127.0.0.1:{port}"
        self.trouble: Callable[[Asked], Trouble | None] = _none
        self.asked: list[Asked] = []
        self.troubled = 0
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()

    def break_connections(self) -> None:
        """All that are open now end as when a machine in between is restarted."""
        self._loop.call_soon_threadsafe(self._break)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    def run(self, cluster: Cluster, started: threading.Event) -> None:
        """Until `stop`. The calling thread is in the cluster's network meanwhile."""
        with cluster.network():
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._serve(str(cluster.state / "pki" / "ca.crt"), started))
            self._loop.close()

    async def _serve(self, authority: str, started: threading.Event) -> None:
        self._tls = ssl.create_default_context(cafile=authority)
        server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        started.set()
        await self._stop.wait()
        server.close()
        self._break()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _break(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio complains about one of its own that is cancelled.
        task = self._loop.create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(partial(self._answered, writer))

    def _answered(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        """Also of a task that was cancelled before it began."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is None:
            writer.close()
            return
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))  # RST instead of FIN
        writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        headers = [line for line in lines if not line.lower().startswith("connection:")]
        length = next((int(line.partition(":")[2]) for line in headers if line.lower().startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        asked = Asked(*first.split()[:2])
        self.asked.append(asked)
        trouble = self.trouble(asked)
        self.troubled += trouble is not None
        match trouble:
            case Instead(answer):
                writer.write(answer)
                await writer.drain()
                return
            case Late(seconds):
                await asyncio.sleep(seconds)
            case Held(reached, opened):
                reached.set()
                await asyncio.to_thread(opened.wait, _HELD_AT_MOST_S)
        request = "\r\n".join((first, *headers, "connection: close", "", "")).encode("latin-1") + body
        await self._forward(request, writer, torn=trouble.after if isinstance(trouble, Torn) else None)

    async def _forward(self, request: bytes, writer: asyncio.StreamWriter, *, torn: int | None) -> None:
        server = urlsplit(API_SERVER)
        upstream, asking = await asyncio.open_connection(server.hostname, server.port, ssl=self._tls)
        try:
            asking.write(request)
            passed = 0
            while piece := await upstream.read(65536):
                if torn is not None and passed + len(piece) > torn:
                    writer.write(piece[: torn - passed])
                    await writer.drain()
                    raise ConnectionResetError
                passed += len(piece)
                writer.write(piece)
                await writer.drain()
        finally:
            asking.transport.abort()


def _none(_: Asked) -> None:
    return None


@contextlib.contextmanager
def front(cluster: Cluster, port: int) -> Iterator[Front]:
    """One that runs for as long as the block lasts."""
    found, started = Front(port), threading.Event()
    thread = threading.Thread(target=found.run, args=(cluster, started), name=f"front-{port}", daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield found
    finally:
        found.stop()
        thread.join(10)
