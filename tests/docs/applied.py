"""An example served as `gwanmun up` does it, with every condition right and everything accepted by Envoy.

The examples name fixed ports of 127.0.0.1. Here they move to an address of this process alone, so that nothing else on the
machine is in their way.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gwanmun.app.offline import resolve_folders
from gwanmun.app.standalone import Standalone, StandaloneOptions
from gwanmun.providers import parse_binding
from gwanmun.sim.server import SimServer
from gwanmun.sim.spec import SimSpec, TlsFiles
from gwanmun.status import rows

EXAMPLES = Path(__file__).parents[2] / "examples"


def loopback(last: int) -> str:
    """An address that no other process of this kind has."""
    pid = os.getpid()
    return f"127.{100 + pid // 256 % 100}.{pid % 256}.{last}"


def lay_out(example: str, folder: Path, address: str, more: Mapping[str, str] = {}) -> Path:
    """The example's files on that address, with more files that it leaves to its user (certificates)."""
    folder.mkdir()
    for file in (EXAMPLES / example).glob("*.yaml"):
        (folder / file.name).write_text(file.read_text().replace("127.0.0.1", address))
    for name, text in more.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@asynccontextmanager
async def applied(folder: Path, address: str, *, bind: tuple[str, ...] = (), zone: str = "") -> AsyncIterator[Standalone]:
    """Serve the folder; what `check` and `status` say is part of the promise."""
    bindings = tuple(parse_binding(text) for text in bind)
    checked = resolve_folders([folder], bindings)
    assert not checked.problems
    assert not checked.unheard
    assert [row.details for row in rows(checked.resolution.statuses) if not row.healthy] == []
    options = StandaloneOptions(paths=(folder,), address=address, zone=zone, bindings=bindings, concurrency=1, drain_seconds=0)
    gateway = Standalone(options)
    serving = asyncio.create_task(gateway.run())
    try:
        await asyncio.wait_for(gateway.wait_until_serving(serving), 60)
        state = gateway.status()
        assert state["problems"] == []
        assert state["healthy"]
        yield gateway
    finally:
        await gateway.stop(serving)


@asynccontextmanager
async def simulated(*specs: SimSpec) -> AsyncIterator[list[SimServer]]:
    servers = [SimServer(spec) for spec in specs]
    try:
        for server in servers:
            await server.start()
        yield servers
    finally:
        for server in servers:
            await server.stop()


def vllm(name: str, address: str, port: int, *models: str, tls: TlsFiles | None = None) -> SimSpec:
    return SimSpec(name, "vllm", models or ("m",), host=address, port=port, tls=tls)


def echo(name: str, address: str, port: int, *, tls: TlsFiles | None = None) -> SimSpec:
    return SimSpec(name, "echo", host=address, port=port, tls=tls)


def client(address: str, port: int = 8080, **more: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{address}:{port}", trust_env=False, timeout=20, **more)


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}], **more}
