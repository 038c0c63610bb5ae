"""Simulated servers as things that start and stop: listener, control routes, faults, and what was seen.

Control (never subject to faults): `GET|POST|DELETE /sim/faults`, `GET /sim/requests?last=N&path=PREFIX`, `POST /sim/reset`.
"""

import asyncio
import os
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from gwanmun.sim.echo import EchoApi
from gwanmun.sim.faults import (
    AnyFault,
    Crash,
    Drip,
    Error,
    FaultPlan,
    Hang,
    HangMidStream,
    Latency,
    RateLimited,
    Reset,
    ResetMidStream,
    decode_faults,
    encode_faults,
)
from gwanmun.sim.grpc_echo import GrpcEcho
from gwanmun.sim.http import Connection, DisconnectedError, Exchange
from gwanmun.sim.replica import Replica
from gwanmun.sim.spec import SimSpec
from gwanmun.sim.tgi import TgiApi
from gwanmun.sim.vllm import VllmApi

_REMEMBERED = 1000
_UNRECORDED = ("/sim/", "/metrics")
_GRACE = 0.25


class Seen(msgspec.Struct):
    """One request as it arrived, and what became of it."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    model: str | None
    body_bytes: int
    body_sha256: str
    client: str
    status: int | None = None
    outcome: str = "open"
    """`open`, `done`, or `cancelled`: the client left, or a fault cut the line."""


class _Api(Protocol):
    def is_model_work(self, path: str) -> bool: ...

    async def handle(self, exchange: Exchange) -> None: ...

    async def fail(self, exchange: Exchange, status: int, message: str, headers: list[tuple[str, str]]) -> None: ...


class _ModelOnly(msgspec.Struct):
    model: str | None = None


class SimServer:
    """One simulated server. `start` before anything else; then `url` is known."""

    def __init__(self, spec: SimSpec, *, wall_clock: Callable[[], float] = time.time) -> None:
        self.spec = spec
        self.host = spec.host
        self.port = spec.port
        self.requests: deque[Seen] = deque(maxlen=_REMEMBERED)
        self.total = 0
        self.cancelled = 0
        self._wall_clock = wall_clock
        self._draw = random.Random(spec.seed).random  # noqa: S311 - chance of faults, not a secret
        self._plan = FaultPlan(spec.faults)
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._replica: Replica | None = None
        self._api: _Api | None = None
        self._grpc: GrpcEcho | None = None
        self._revival: asyncio.TimerHandle | None = None
        self._reviving: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'http' if self.spec.tls is None else 'https'}://{self.address}"

    @property
    def replica(self) -> Replica:
        """The replica behind a vLLM, TGI or OpenAI server."""
        assert self._replica is not None
        return self._replica

    async def start(self) -> tuple[str, int]:
        """Listen. Raises OSError when the port is taken and ValueError for a profile that does not exist."""
        if self.spec.engine == "grpc":
            self._grpc = GrpcEcho(replace(self.spec, port=self.port), plan=lambda: self._plan, draw=self._draw)
            self.port = await self._grpc.start()
            return self.host, self.port
        self._api = self._new_api()
        self._listener = await asyncio.get_running_loop().create_server(
            self._new_connection, self.host, self.port, ssl=_tls_context(self.spec), reuse_address=True
        )
        # A port that was free once is kept over crash and return.
        self.port = self._listener.sockets[0].getsockname()[1]
        return self.host, self.port

    async def stop(self) -> None:
        """Stop listening, let answers under way end for a moment, then cut what is left."""
        if self._revival is not None:
            self._revival.cancel()
        if self._grpc is not None:
            await self._grpc.stop(_GRACE)
            return
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            connection.close_when_idle()
        busy = [connection.task for connection in self._connections if connection.task is not None]
        if busy:
            await asyncio.wait(busy, timeout=_GRACE)
        # asyncio tells a connection of its end one turn of the loop later.
        await asyncio.sleep(0)
        await self.crash()

    async def crash(self) -> None:
        """Be gone at once: listener closed, connections reset, cache lost."""
        if self._grpc is not None:
            await self._grpc.stop(None)
            return
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in tuple(self._connections):
            connection.reset()
        if self._replica is not None:
            self._replica.close()

    async def restart(self) -> None:
        """Come back on the same port as a new process would: empty cache, metrics at zero, new start time."""
        await self.start()

    def set_faults(self, faults: Sequence[AnyFault]) -> None:
        """Replace the faults in force."""
        self._plan = FaultPlan(faults)

    def grpc_calls(self) -> list[tuple[str, dict[str, str]]]:
        """Method and metadata of each call to a gRPC server."""
        assert self._grpc is not None
        return list(self._grpc.calls)

    # Requests

    def _new_api(self) -> _Api:
        if self.spec.engine == "echo":
            return EchoApi(self.spec)
        self._replica = Replica(self.spec.engine_profile(), seed=self.spec.seed, speed=self.spec.speed)
        if self.spec.engine == "tgi":
            return TgiApi(self.spec, self._replica, created=self._wall_clock)
        return VllmApi(self.spec, self._replica, created=self._wall_clock)

    def _new_connection(self) -> Connection:
        return Connection(self._serve, self._connections, keep_alive=self.spec.keep_alive)

    async def _serve(self, exchange: Exchange) -> None:
        exchange.extra_headers.append(("x-served-by", self.spec.name))
        if self.spec.zone is not None:
            exchange.extra_headers.append(("x-served-zone", self.spec.zone))
        if exchange.path.startswith("/sim/"):
            await self._control(exchange)
            return
        seen = self._remember(exchange)
        try:
            await self._answer(exchange)
        except (asyncio.CancelledError, DisconnectedError):
            seen.outcome = "cancelled"
            self.cancelled += 1
            raise
        else:
            seen.outcome = "done"
        finally:
            seen.status = exchange.status

    async def _answer(self, exchange: Exchange) -> None:
        assert self._api is not None
        work = self._api.is_model_work(exchange.path)
        for fault in self._plan.chosen(exchange.path, is_model_work=work, draw=self._draw):
            match fault:
                case Latency():
                    await asyncio.sleep(fault.seconds + fault.jitter * self._draw())
                case Error():
                    await self._api.fail(exchange, fault.status, fault.message, [])
                    return
                case RateLimited():
                    headers = [("retry-after", str(fault.retry_after))]
                    await self._api.fail(exchange, 429, "simulated rate limit", headers)
                    return
                case Hang():
                    await exchange.hang()
                case Reset():
                    exchange.reset()
                    raise DisconnectedError
                case HangMidStream() | ResetMidStream():
                    exchange.mid_stream = fault
                case Drip():
                    exchange.drip = fault
                case Crash():
                    await self._crash_for(fault)
                    raise DisconnectedError
        await self._api.handle(exchange)

    async def _crash_for(self, fault: Crash) -> None:
        await self.crash()
        if fault.back_after is not None:
            self._revival = asyncio.get_running_loop().call_later(fault.back_after, self._revive)

    def _revive(self) -> None:
        self._reviving = asyncio.get_running_loop().create_task(self.restart())

    def _remember(self, exchange: Exchange) -> Seen:
        seen = Seen(
            method=exchange.method,
            path=exchange.path,
            query=exchange.query_string,
            headers=_joined(exchange.headers),
            model=_model_of(exchange),
            body_bytes=len(exchange.body),
            body_sha256=sha256(exchange.body).hexdigest(),
            client=exchange.client,
        )
        if not exchange.path.startswith(_UNRECORDED):
            self.requests.append(seen)
            self.total += 1
        return seen

    # Control

    async def _control(self, exchange: Exchange) -> None:
        match exchange.method, exchange.path:
            case "POST", "/sim/faults":
                try:
                    self.set_faults(decode_faults(exchange.body))
                except ValueError as error:
                    await exchange.respond_json(400, {"error": str(error)})
                    return
                await self._show_faults(exchange)
            case "GET", "/sim/faults":
                await self._show_faults(exchange)
            case "DELETE", "/sim/faults":
                self.set_faults(())
                await self._show_faults(exchange)
            case "GET", "/sim/requests":
                await self._show_requests(exchange)
            case "POST", "/sim/reset":
                self.set_faults(())
                self.requests.clear()
                self.total = self.cancelled = 0
                await exchange.respond_json(200, {"name": self.spec.name})
            case _:
                text = "/sim has faults (GET, POST, DELETE), requests (GET) and reset (POST)"
                await exchange.respond_json(404, {"error": text})

    async def _show_faults(self, exchange: Exchange) -> None:
        await exchange.respond(200, encode_faults(self._plan.faults), [("content-type", "application/json")])

    async def _show_requests(self, exchange: Exchange) -> None:
        prefix = exchange.query.get("path", "")
        last = exchange.query.get("last", str(_REMEMBERED))
        if not last.isdecimal():
            await exchange.respond_json(400, {"error": f"last={last} is not a number"})
            return
        found = [seen for seen in self.requests if seen.path.startswith(prefix)]
        shown: dict[str, Any] = {
            "name": self.spec.name,
            "total": self.total,
            "cancelled": self.cancelled,
            "requests": found[max(0, len(found) - int(last)) :],
        }
        await exchange.respond_json(200, shown)


async def run(specs: Sequence[SimSpec], *, ready: Callable[[Sequence[SimServer]], None] = lambda servers: None) -> None:
    """Serve until cancelled; `ready` learns of the servers, and so of their ports, when all listen.

    Raises OSError that names the server when an address is taken, and ValueError for an unknown profile; nothing is left
    running then.
    """
    servers = [SimServer(spec) for spec in specs]
    try:
        for server in servers:
            try:
                await server.start()
            except OSError as error:
                why = os.strerror(error.errno) if error.errno else error
                raise OSError(f"{server.spec.name} cannot listen on {server.spec.host}:{server.spec.port}: {why}") from error
        ready(servers)
        await asyncio.get_running_loop().create_future()
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


def _tls_context(spec: SimSpec) -> ssl.SSLContext | None:
    if spec.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(spec.tls.certificate, spec.tls.key)
    if spec.tls.client_ca is not None:
        context.load_verify_locations(spec.tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _joined(headers: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Repeated headers become one, as HTTP allows."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _model_of(exchange: Exchange) -> str | None:
    """The body's `model`, whatever else the body is."""
    try:
        return msgspec.json.decode(exchange.body, type=_ModelOnly).model
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
