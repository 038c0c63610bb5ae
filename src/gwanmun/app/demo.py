"""The demo: the specification's manifests, unchanged, in front of simulated model servers.

`Demo` starts the servers, lays out a folder (the example, certificates, endpoints), serves it exactly as `gwanmun up`
does, sends the requests of `REQUESTS` and tells a `Printer` who answered. Nothing about the demo is known elsewhere.
"""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import gwanmun
from gwanmun.app.certificates import Authority, tls_secret
from gwanmun.app.errors import UserError
from gwanmun.app.probe import Answer, Probe
from gwanmun.app.standalone import Standalone, StandaloneOptions, end
from gwanmun.infra.ports import Place
from gwanmun.infra.probe import first_unprivileged_port, unusable
from gwanmun.infra.rundir import run_directory
from gwanmun.names import NamespacedName
from gwanmun.providers import ServiceBinding
from gwanmun.sim.server import SimServer
from gwanmun.sim.spec import SimSpec

HTTP_HOST = "inference.example.com"
GRPC_HOST = "inference-grpc.example.com"
GATEWAY = NamespacedName("ai-gateway", "ai-inference-gateway")
PORTS = (80, 443, 8443)

SERVERS: Mapping[NamespacedName, SimSpec] = {
    NamespacedName("ai-inference", "vllm-gpt4-service"): SimSpec("vllm-gpt4", "vllm", ("gpt-4",)),
    NamespacedName("ai-inference", "vllm-claude3-service"): SimSpec("vllm-claude3", "vllm", ("claude-3",)),
    NamespacedName("ai-inference", "tgi-mixtral-service"): SimSpec("tgi-mixtral", "tgi", ("mixtral-8x7b",)),
    NamespacedName("ai-gateway", "chat-completion-service"): SimSpec(
        "chat-completion", "vllm", ("default-chat", "some-new-model")
    ),
    NamespacedName("ai-gateway", "embedding-service"): SimSpec("embedding", "vllm", ("text-embedding",)),
    NamespacedName("ai-gateway", "completion-service"): SimSpec("completion", "vllm", ("legacy",)),
    NamespacedName("ai-gateway", "health-check-service"): SimSpec("health-check", "echo"),
    NamespacedName("ai-gateway", "grpc-inference-service"): SimSpec("grpc-inference", "grpc"),
}


@dataclass(frozen=True, slots=True)
class DemoRequest:
    """`kind`: json, sse, grpc. `answered_by` is the server expected, empty for what the gateway itself answers."""

    title: str
    path: str
    kind: str = "json"
    scheme: str = "https"
    headers: tuple[tuple[str, str], ...] = ()
    body: Mapping[str, object] | None = None
    status: int = 200
    answered_by: str = ""
    needs_module: bool = False


def _chat(model: str, **more: object) -> dict[str, object]:
    return {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}], **more}


CHAT = "/v1/chat/completions"

REQUESTS: Sequence[DemoRequest] = (
    DemoRequest(
        "header x-model-id: gpt-4", CHAT, headers=(("x-model-id", "gpt-4"),), body=_chat("gpt-4"), answered_by="vllm-gpt4"
    ),
    DemoRequest(
        "header x-model-id: claude-3",
        CHAT,
        headers=(("x-model-id", "claude-3"),),
        body=_chat("claude-3"),
        answered_by="vllm-claude3",
    ),
    DemoRequest(
        "header x-model-id: mixtral-8x7b",
        CHAT,
        headers=(("x-model-id", "mixtral-8x7b"),),
        body=_chat("mixtral-8x7b"),
        answered_by="tgi-mixtral",
    ),
    DemoRequest('"model": "gpt-4" in the body', CHAT, body=_chat("gpt-4"), answered_by="vllm-gpt4", needs_module=True),
    DemoRequest('"model": "claude-3" in the body', CHAT, body=_chat("claude-3"), answered_by="vllm-claude3", needs_module=True),
    DemoRequest(
        '"model": "mixtral-8x7b", streamed',
        CHAT,
        "sse",
        body=_chat("mixtral-8x7b", stream=True),
        answered_by="tgi-mixtral",
        needs_module=True,
    ),
    DemoRequest("another model: by path", CHAT, body=_chat("some-new-model"), answered_by="chat-completion"),
    DemoRequest(
        "embeddings: by path", "/v1/embeddings", body={"model": "text-embedding", "input": "Hello"}, answered_by="embedding"
    ),
    DemoRequest(
        "completions: by path",
        "/v1/completions",
        body={"model": "legacy", "prompt": "Hello", "max_tokens": 8},
        answered_by="completion",
    ),
    DemoRequest("health: exact path", "/health", answered_by="health-check"),
    DemoRequest("plain HTTP", CHAT, scheme="http", body=_chat("gpt-4"), status=308),
    DemoRequest("gRPC on its own listener", "/inference.Echo/Say", "grpc", answered_by="grpc-inference"),
    DemoRequest("a path that no route has", "/nowhere", status=404),
)


class Printer(Protocol):
    """Shows the demo to somebody."""

    def starting(self, servers: int) -> None: ...
    def answered(self, request: DemoRequest, answer: Answer, right: bool) -> None: ...
    def skipped(self, request: DemoRequest, why: str) -> None: ...
    def summary(self, right: int, asked: int) -> None: ...
    def ready_to_paste(self, world: "DemoWorld") -> None: ...


@dataclass(frozen=True, slots=True)
class DemoWorld:
    """The demo's gateway, serving. `servers` are the simulated ones by the Service that stands for them."""

    gateway: Standalone
    serving: asyncio.Task[None]
    address: str
    servers: Mapping[NamespacedName, SimServer]
    manifests: Path
    authority: Path

    @property
    def ports(self) -> Mapping[int, int]:
        """Where the ports of the Gateway's listeners are bound."""
        return self.gateway.ports_of(GATEWAY)

    @property
    def probe(self) -> Probe:
        return Probe(self.ports, self.authority, self.address)


@asynccontextmanager
async def demo_world(concurrency: int | None = None) -> AsyncIterator[DemoWorld]:
    """The simulated servers and the gateway in front of them, until the block ends."""
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="gwanmun-demo-"))
        stack.callback(shutil.rmtree, folder)
        authority, manifests = folder / "authority.pem", folder / "manifests"
        stack.push_async_callback(_forget, manifests)
        address = stack.enter_context(_own_address())
        authority.write_text(_lay_out(manifests))
        servers = {service: SimServer(spec) for service, spec in SERVERS.items()}
        bindings = []
        for service, server in servers.items():
            host, port = await server.start()
            stack.push_async_callback(server.stop)
            bindings.append(ServiceBinding(service, host, port))
        gateway = Standalone(
            StandaloneOptions(
                paths=(manifests,), address=address, bindings=tuple(bindings), concurrency=concurrency, drain_seconds=1
            )
        )
        serving = asyncio.create_task(gateway.run())
        stack.push_async_callback(gateway.stop, serving)
        await gateway.wait_until_serving(serving)
        yield DemoWorld(gateway, serving, address, servers, manifests, authority)


@contextmanager
def _own_address() -> Iterator[str]:
    """The first address of this machine where the Gateway's ports are free and no other demo is, until the block ends."""
    lowest = first_unprivileged_port()  # those below are mapped to whatever is free
    for last in range(1, 255):
        address = f"127.0.0.{last}"
        if any(unusable(Place(address, port, "tcp")) for port in PORTS if port >= lowest):
            continue
        with closing(socket.socket(socket.AF_UNIX)) as mine:
            try:
                mine.bind(f"\0gwanmun-demo-{address}")  # a name without a file: gone with the process, however it ends
            except OSError:
                continue
            yield address
            return
    raise UserError(f"no address of 127.0.0.0/24 has the ports {', '.join(map(str, PORTS))} free")


async def _forget(manifests: Path) -> None:
    """Nobody serves this folder again: end what a fault may have left running, and remove its run directory."""
    await end((manifests,))
    shutil.rmtree(run_directory(manifests, os.environ).path)


@dataclass(frozen=True, slots=True)
class Demo:
    """`run` is True where every request was answered as it should be. With `stay` it serves on until it is stopped."""

    printer: Printer
    stay: bool
    concurrency: int | None = None

    async def run(self) -> bool:
        self.printer.starting(len(SERVERS))
        async with demo_world(self.concurrency) as world:
            right = await self._ask(world.probe, module=world.gateway.has_module)
            if self.stay:
                self.printer.ready_to_paste(world)
                await world.serving
        return right

    async def _ask(self, probe: Probe, *, module: bool) -> bool:
        asked = right = 0
        for request in REQUESTS:
            if request.needs_module and not module:
                self.printer.skipped(request, "needs the native module, which is not built here")
                continue
            answer = await send(probe, request)
            good = answer.status == request.status and answer.served_by == request.answered_by
            self.printer.answered(request, answer, good)
            asked += 1
            right += good
        self.printer.summary(right, asked)
        return right == asked


async def send(probe: Probe, request: DemoRequest) -> Answer:
    """Ask the gateway for one of the requests."""
    if request.kind == "grpc":
        return await probe.grpc(GRPC_HOST, 8443, request.path)
    return await probe.http(
        request.scheme,
        HTTP_HOST,
        443 if request.scheme == "https" else 80,
        request.path,
        headers=dict(request.headers),
        body=request.body,
    )


def _lay_out(folder: Path) -> str:
    """The example's manifests, unchanged, and the two certificates that they name. Gives the authority's PEM."""
    shutil.copytree(specification(), folder)
    authority = Authority()
    (folder / "90-certificates.yaml").write_text(
        "---\n".join(
            tls_secret("ai-gateway", name, authority.issue(host))
            for name, host in (("inference-tls-cert", HTTP_HOST), ("inference-grpc-tls-cert", GRPC_HOST))
        )
    )
    (folder / "90-certificates.yaml").chmod(0o600)
    return authority.pem


def specification() -> Path:
    """The example's folder: beside the package where it is installed, in the checkout where it is edited."""
    package = Path(gwanmun.__file__).parent
    for place in (package / "_examples", package.parent.parent / "examples"):
        if (place / "specification").is_dir():
            return place / "specification"
    raise UserError("the example manifests are not in this installation; install gwanmun from its wheel or a checkout")
