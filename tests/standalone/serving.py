"""A folder of manifests served as `gwanmun up` does it, on a free port of an address of the tests' own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from gateway_class import GATEWAY_CLASS
from gwanmun.app.standalone import Standalone, StandaloneOptions
from gwanmun.sim.server import SimServer
from gwanmun.sim.spec import SimSpec

ADDRESS = "127.0.3.1"
HOST = "a.example.com"

CLASS = GATEWAY_CLASS


def gateway(port: int, *, name: str = "gw", tls: str = "") -> str:
    """A Gateway with one listener for every host. `tls` is the listener's tls field."""
    protocol = f"protocol: HTTPS, tls: {tls}" if tls else "protocol: HTTP"
    return f"""\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: gwanmun
  listeners: [{{name: web, port: {port}, {protocol}}}]
"""


def backend(name: str, port: int, **spec: str) -> str:
    """A Backend on loopback."""
    more = "".join(f", {key}: {value}" for key, value in spec.items())
    return f"""\
---
apiVersion: gwanmun.dev/v1alpha1
kind: Backend
metadata: {{name: {name}}}
spec: {{endpoints: [{{address: 127.0.0.1, port: {port}}}]{more}}}
"""


def route(name: str, *rules: str, host: str = HOST, parent: str = "gw") -> str:
    """An HTTPRoute; `rules` are YAML flow mappings."""
    return f"""\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: {parent}}}]
  hostnames: [{host}]
  rules:
{"".join(f"  - {rule}{chr(10)}" for rule in rules)}"""


def to(name: str, *, path: str = "/", more: str = "") -> str:
    """A rule that sends what is under a path to a Backend."""
    return f"{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{ref(name)}]{more}}}"


def ref(name: str) -> str:
    return f"{{group: gwanmun.dev, kind: Backend, name: {name}}}"


@dataclass
class Served:
    """A gateway that runs. `port` is that of its first listener."""

    gateway: Standalone
    serving: asyncio.Task[None]
    folder: Path
    address: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    def at(self, port: int, *, address: str = "") -> "Served":
        """The same gateway, asked at another of its ports or addresses."""
        return replace(self, port=port, address=address or self.address)

    def client(self, host: str = HOST, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, headers={"host": host}, trust_env=False, timeout=20, **more)

    async def ask(self, path: str = "/", method: str = "GET", *, host: str = HOST, **more: Any) -> httpx.Response:
        async with self.client(host) as client:
            return await client.request(method, path, **more)

    async def edit(self, **texts: str | None) -> None:
        """Write files (None deletes one), and wait until Envoy has what follows."""
        version = self.gateway.version
        write(self.folder, texts)
        await asyncio.wait_for(self.gateway.serving_after(version), 20)

    @property
    def problems(self) -> list[str]:
        found: list[str] = self.gateway.status()["problems"]
        return found

    async def problem(self, *words: str) -> str:
        """The first problem that says all of these words, as soon as it is there."""
        await until(lambda: any(_says(line, words) for line in self.problems), lambda: "\n".join(self.problems))
        return next(line for line in self.problems if _says(line, words))

    async def mended(self) -> None:
        await until(lambda: not self.problems, lambda: "\n".join(self.problems))

    async def answers(self, path: str = "/", *, by: str) -> None:
        """Wait until that server answers the path: connections are opened in order, but not all at once."""
        async with self.client() as client, asyncio.timeout(20):
            while (response := await client.get(path)).headers.get("x-served-by") != by:  # noqa: ASYNC110  Envoy tells nobody
                await asyncio.sleep(0.02)
            assert response.status_code == 200


@asynccontextmanager
async def served(
    folder: Path, texts: Mapping[str, str], *, port: int, address: str = ADDRESS, **options: Any
) -> AsyncIterator[Served]:
    """Serve these files, by name without suffix, until the block ends."""
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240  a moment, and nobody waits
    write(folder, texts)
    standalone = Standalone(
        StandaloneOptions(paths=(folder,), address=address, **{"concurrency": 1, "drain_seconds": 0, **options})
    )
    serving = asyncio.create_task(standalone.run())
    try:
        await asyncio.wait_for(standalone.wait_until_serving(serving), 60)
        yield Served(standalone, serving, folder, address, port)
    finally:
        await standalone.stop(serving)


def write(folder: Path, texts: Mapping[str, str | None]) -> None:
    for name, text in texts.items():
        path = folder / f"{name}.yaml"
        if text is None:
            path.unlink()
            continue
        partial = folder / f".{name}"
        partial.write_text(text)
        partial.replace(path)


@asynccontextmanager
async def simulated(*specs: SimSpec) -> AsyncIterator[list[SimServer]]:
    """Simulated servers that listen."""
    servers = [SimServer(spec) for spec in specs]
    try:
        for server in servers:
            await server.start()
        yield servers
    finally:
        for server in servers:
            await server.stop()


async def until(holds: Callable[[], bool], saying: Callable[[], str] = lambda: "", seconds: float = 10.0) -> None:
    """Wait for a condition; `saying` tells what was there instead."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110  what is awaited tells nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"it did not come to that; there is: {saying()}") from None


def _says(line: str, words: tuple[str, ...]) -> bool:
    return all(word in line for word in words)
