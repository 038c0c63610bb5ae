"""InferencePools in front of a real Envoy: manifests, pods on loopback, and scripted endpoint pickers."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from harness import LOOPBACK
from picker import Picker
from proxied import Proxy, Upstream, proxy

import gwanmun
from free_ports import free_port
from golden.test_goldens import resolve_text
from gwanmun.ir import Model
from gwanmun.names import NamespacedName
from gwanmun.resolve.model import Resolution
from gwanmun.xds import Binding, Options

MODULE = Path(gwanmun.__file__).parent / "_native" / "libgwanmun.so"
GROUP = "inference.networking.k8s.io"


@dataclass
class PlainHttp2:
    """A server that speaks nothing but HTTP/2 without TLS, and answers every request with its name in a header."""

    name: str

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readexactly(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            writer.write(_frame(4, 0, 0))
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
                if kind == 4 and not flags & 1:
                    writer.write(_frame(4, 1, 0))  # SETTINGS, acknowledged
                elif kind in (0, 1) and flags & 1:  # the end of a request: HEADERS with :status 200 and a literal field
                    field = b"\x00\x06x-name" + bytes([len(self.name)]) + self.name.encode()
                    writer.write(_frame(1, 0x5, stream, b"\x88" + field))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the proxy has closed
        finally:
            writer.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


# Manifests


def gateway(name: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: ai}}
spec:
  gatewayClassName: gwanmun
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""


def route(name: str, path: str, *pools: str | tuple[str, int], parent: str = "primary", match: str = "", **refs: Any) -> str:
    pairs = [(pool, 1) if isinstance(pool, str) else pool for pool in pools]
    """An HTTPRoute to pools. `refs` are further fields of its backendRefs, `match` of its match."""
    extra = "".join(f", {key}: {value}" for key, value in refs.items())
    backends = ", ".join(f"{{group: {GROUP}, kind: InferencePool, name: {pool}, weight: {w}{extra}}}" for pool, w in pairs)
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: ai}}
spec:
  parentRefs: [{{name: {parent}}}]
  rules: [{{matches: [{{path: {{value: {path}}}{match}}}], backendRefs: [{backends}]}}]
"""


@dataclass(frozen=True)
class Pool:
    """A pool with `replicas` pods. `address` is the third number of theirs."""

    name: str
    address: int
    replicas: int = 3
    ranks: int = 1
    picker: bool = True
    failure_mode: str = "FailClose"
    app_protocol: str | None = None
    tls: bool = True

    def pod(self, index: int) -> str:
        return f"{self.name}-{index}"

    def ip(self, index: int) -> str:
        return f"127.1.{self.address}.{index + 1}"

    def manifests(self, ports: tuple[int, ...], picker: int) -> Iterable[str]:
        reference = f"endpointPickerRef: {{name: {self.name}-picker, port: {{number: 9002}}, failureMode: {self.failure_mode}}}"
        yield f"""
apiVersion: {GROUP}/v1
kind: InferencePool
metadata: {{name: {self.name}, namespace: ai}}
spec:
  selector: {{matchLabels: {{app: {self.name}}}}}
  targetPorts: [{", ".join(f"{{number: {port}}}" for port in ports)}]
  {f"appProtocol: {self.app_protocol}" if self.app_protocol else ""}
  {reference if self.picker else ""}
"""
        for index in range(self.replicas):
            yield f"""
apiVersion: v1
kind: Pod
metadata: {{name: {self.pod(index)}, namespace: ai, labels: {{app: {self.name}}}}}
status: {{phase: Running, podIP: {self.ip(index)}, conditions: [{{type: Ready, status: "True"}}]}}
"""
        if self.picker:
            yield f"""
apiVersion: v1
kind: Service
metadata: {{name: {self.name}-picker, namespace: ai}}
spec: {{ports: [{{port: 9002, appProtocol: {"http2" if self.tls else "kubernetes.io/h2c"}}}]}}
"""
            yield f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {self.name}-picker, namespace: ai, labels: {{kubernetes.io/service-name: {self.name}-picker}}}}
addressType: IPv4
ports: [{{name: "", port: {picker}}}]
endpoints: [{{addresses: [{LOOPBACK}]}}]
"""


@dataclass
class Serving:
    """What is served, and by whom."""

    proxy: Proxy
    resolution: Resolution
    options: Options
    ports: dict[str, int]
    pods: dict[str, Upstream]
    servers: dict[str, asyncio.Server]
    pickers: dict[str, Picker]
    text: dict[str, str]
    targets: tuple[int, ...]

    def client(self, gateway: str = "primary") -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://{LOOPBACK}:{self.ports[gateway]}", timeout=30, trust_env=False)

    def conditions(self, kind: str, name: str) -> dict[str, dict[str, tuple[bool | None, str]]]:
        """Status and reason by condition, by parent."""
        for key, status in self.resolution.statuses.items():
            if (key.kind, key.name) == (kind, name):
                return {
                    parent.parent_ref.name: {one.type: (one.status, one.reason) for one in parent.conditions}
                    for parent in status.parents  # type: ignore[union-attr]  # a pool's
                }
        return {}

    async def without(self, *names: str) -> None:
        """Serve without these manifests."""
        for name in names:
            del self.text[name]
        self.resolution = _resolved(self.text.values())
        await self.proxy.show(self.resolution.model, self.options)


@asynccontextmanager
async def serving(
    tmp_path: Path, *pools: Pool, routes: dict[str, str], gateways: tuple[str, ...] = ("primary",)
) -> AsyncIterator[Serving]:
    """The pools behind these routes, with pods and pickers that run."""
    targets = tuple(free_port() for _ in range(max((pool.ranks for pool in pools), default=1)))
    text = {f"gateway {name}": gateway(name) for name in gateways} | routes
    pods: dict[str, Upstream] = {}
    servers: dict[str, asyncio.Server] = {}
    pickers: dict[str, Picker] = {}
    async with AsyncExitStack() as stack:
        for pool in pools:
            ports = targets[: pool.ranks]
            for index in range(pool.replicas):
                for rank, port in enumerate(ports):
                    name = pool.pod(index) if pool.ranks == 1 else f"{pool.pod(index)}:{rank}"
                    pods[name] = Upstream(name, port)
                    serve = PlainHttp2(name).serve if pool.app_protocol == "kubernetes.io/h2c" else pods[name].serve
                    servers[name] = await asyncio.start_server(serve, pool.ip(index), port)
                    stack.callback(servers[name].close)
            if pool.picker:
                addresses = tuple(f"{pool.ip(index)}:{port}" for index in range(pool.replicas) for port in ports)
                picker = pickers[pool.name] = Picker(addresses, tls=pool.tls)
                await picker.start()
                stack.push_async_callback(picker.stop)
            for position, manifest in enumerate(pool.manifests(ports, pickers[pool.name].port if pool.picker else 0)):
                text[f"{pool.name}/{position}"] = manifest
        resolution = _resolved(text.values())
        places = {name: free_port() for name in gateways}
        options = _options(resolution.model, places)
        running = await stack.enter_async_context(proxy(tmp_path, resolution.model, options, places[gateways[0]]))
        yield Serving(running, resolution, options, places, pods, servers, pickers, text, targets)


def _resolved(manifests: Iterable[str]) -> Resolution:
    return resolve_text("\n---\n".join(manifests), "pools.yaml")


def _options(model: Model, places: dict[str, int]) -> Options:
    bindings = {
        (key, 80, "tcp"): (Binding(LOOPBACK, places[key.name], 80),)
        for key in model.gateways
        if isinstance(key, NamespacedName)
    }
    return Options(bindings=bindings, module_path=str(MODULE) if MODULE.exists() else None)  # type: ignore[arg-type]  # tcp or udp
