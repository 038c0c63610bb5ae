"""A translated model served by a real Envoy over our real ADS, in front of backends that say what they saw."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from harness import LOOPBACK, Envoy, bootstrap, running_envoy

from gwanmun.ir import Model
from gwanmun.xds import Options, Translation, translate
from gwanmun.xds_server import Publisher, ResourceSet, ServerOptions, XdsServer, resource
from gwanmun.xds_server.resources import Need

SCOPE = "all"


@dataclass
class Upstream:
    """An HTTP/1 server that answers with what it saw. `script` holds statuses for its next answers (`status` is what it says
    without one); "reset" ends the connection without one, "hang" never answers. `seen` are the request heads. Each request
    takes `seconds`, of which the seats, if there are some, bound how many at a time; others wait."""

    name: str
    port: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)
    script: deque[int | str] = field(default_factory=deque)
    status: int = 200
    seconds: float = 0.0
    seats: asyncio.Semaphore | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request = _parsed(head.decode("latin-1"))
                request["body"] = (await _body(reader, request["headers"])).decode("latin-1")
                self.seen.append(request)
                step = self.script.popleft() if self.script else self.status
                async with self.seats or nullcontext():
                    await asyncio.sleep(self.seconds)
                if step == "hang":
                    await reader.read()
                    break
                if step == "reset":
                    break
                answer = json.dumps({"name": self.name, **request}).encode()
                writer.write(f"HTTP/1.1 {step} X\r\ncontent-length: {len(answer)}\r\n\r\n".encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the proxy has closed
        finally:
            writer.close()


def _parsed(head: str) -> dict[str, Any]:
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name = name.lower()
        headers[name] = f"{headers[name]},{value.strip()}" if name in headers else value.strip()
    return {"method": method, "path": path, "headers": headers}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        body += await reader.readexactly(size)
        await reader.readuntil(b"\r\n")
    await reader.readuntil(b"\r\n")
    return body


@asynccontextmanager
async def upstreams(*names: str) -> AsyncIterator[dict[str, Upstream]]:
    """Backends by name."""
    found = {name: Upstream(name) for name in names}
    servers = []
    for one in found.values():
        server = await asyncio.start_server(one.serve, LOOPBACK, 0)
        one.port = server.sockets[0].getsockname()[1]
        servers.append(server)
    try:
        yield found
    finally:
        for server in servers:
            server.close()


@dataclass
class Proxy:
    """A running Envoy with a model in it."""

    envoy: Envoy
    publisher: Publisher
    port: int
    translation: Translation
    resources: ResourceSet

    async def show(self, model: Model, options: Options) -> Translation:
        """Serve another model, and wait until it is served."""
        self.translation = translate(model, options, self.translation)
        self.resources = resource_set(self.translation)
        await self.publish()
        return self.translation

    async def publish(self) -> None:
        serial = self.publisher.publish(SCOPE, self.resources)
        async with asyncio.timeout(20):
            (state,) = await self.publisher.until_applied(SCOPE, serial)
        assert not state.rejections, state.rejections

    def client(self, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{self.port}", timeout=10, trust_env=False, **more)


def resource_set(translation: Translation) -> ResourceSet:
    return ResourceSet(
        {
            kind: {
                name: resource(name, body, (Need(*need) for need in translation.needs[kind].get(name, ())))
                for name, body in bodies.items()
            }
            for kind, bodies in translation.resources.items()
        }
    )


@asynccontextmanager
async def proxy(
    directory: Path, model: Model, options: Options, port: int, *, extensions: Sequence[dict[str, Any]] = ()
) -> AsyncIterator[Proxy]:
    """Envoy with the model in force. `port` is where the options bind it; `extensions` are for its bootstrap."""
    publisher = Publisher()
    server = XdsServer(publisher, lambda node, peer: SCOPE, ServerOptions(patience=0.5))
    socket = directory / "ads.sock"
    await server.start(f"unix:{socket}")
    translation = translate(model, options)
    try:
        document = {**bootstrap(socket), "bootstrap_extensions": list(extensions)}
        async with running_envoy(directory, document) as envoy:
            found = Proxy(envoy, publisher, port, translation, resource_set(translation))
            await found.publish()
            yield found
    finally:
        await server.stop()


@dataclass
class Asked:
    """An answer, in the words of tests."""

    response: httpx.Response

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def saw(self) -> dict[str, Any]:
        """What the backend saw."""
        assert self.status == 200, (self.status, self.response.text)
        found: dict[str, Any] = self.response.json()
        return found

    @property
    def by(self) -> str:
        return str(self.saw["name"])

    @property
    def error(self) -> dict[str, Any]:
        """The error in OpenAI's shape."""
        assert self.response.headers["content-type"] == "application/json"
        found: dict[str, Any] = self.response.json()["error"]
        assert found.keys() == {"message", "type", "param", "code"}
        return found


async def ask(client: httpx.AsyncClient, path: str = "/", method: str = "GET", host: str = "test", **more: Any) -> Asked:
    headers = {"host": host, **more.pop("headers", {})}
    return Asked(await client.request(method, path, headers=headers, **more))
