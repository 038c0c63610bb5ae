"""What the proxy container runs: Envoy, told where its control plane is, and looked after until its requests are done.

`/ready`, `/healthz` and `/metrics` are answered for a machine that asks from outside the pod; Envoy's own admin interface
is a unix socket that nobody outside reaches. Deliberately absent: any configuration of traffic, which comes over xDS.
"""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gwanmun.app.errors import UserError
from gwanmun.app.serving import AFew, listening_socket, serving
from gwanmun.app.words import ENVOY_LOG_LEVELS, host_and_port, one_of
from gwanmun.infra.admin import Admin, AdminError
from gwanmun.infra.bootstrap import BootstrapOptions, XdsEndpoint, bootstrap, serialize_bootstrap
from gwanmun.infra.ending import drain
from gwanmun.infra.envoy import MODULE, EnvoyBinary, find_envoy
from gwanmun.infra.fleet import contract
from gwanmun.infra.fleet.child import child_command, end_child, start_child
from gwanmun.infra.fleet.credentials import Credentials, CredentialsError, wait_for_credentials
from gwanmun.infra.memory import container_heap
from gwanmun.infra.podports import METRICS_PORT
from gwanmun.infra.rundir import RunDir
from gwanmun.protos import EnvoyBinaryError

log = structlog.get_logger()

_SCRAPES = 4
"""At once: Envoy's main thread, which also takes configuration, makes the text."""


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """`gateway` is "namespace/name". `settle` is how long new requests are still taken after the end was asked for: so
    long it takes until nobody sends any here. `drain` is for those under way then. `status_address` empty means all."""

    xds_host: str
    xds_port: int
    xds_server_name: str
    gateway: str
    pod: str
    node: str = ""
    zone: str = ""
    concurrency: int | None = None
    memory_bytes: int | None = None
    drain: timedelta = timedelta(minutes=5)
    settle: timedelta = timedelta(seconds=5)
    log_level: str = "warning"
    log_format: str = "json"
    token_file: Path = Path(contract.TOKEN_FILE)
    ca_file: Path = Path(contract.CA_FILE)
    run_directory: Path = Path(contract.RUN_DIRECTORY)
    status_port: int = METRICS_PORT
    status_address: str = ""
    refresh_seconds: float = 10.0


def proxy_options(environment: Mapping[str, str]) -> ProxyOptions:
    """The options that a pod's variables say. Raises UserError, which names the variable and what it has to be."""
    host, port = _address(environment)
    level = one_of(contract.LOG_LEVEL, environment.get(contract.LOG_LEVEL) or "warning", ENVOY_LOG_LEVELS)
    form = one_of(contract.LOG_FORMAT, environment.get(contract.LOG_FORMAT) or "json", ("json", "text"))
    return ProxyOptions(
        xds_host=host,
        xds_port=port,
        xds_server_name=environment.get(contract.XDS_SERVER_NAME) or host,
        gateway=_required(environment, contract.GATEWAY, "the Gateway as namespace/name"),
        pod=_required(environment, contract.POD_NAME, "the pod's name"),
        node=environment.get(contract.NODE_NAME, ""),
        zone=environment.get(contract.ZONE, ""),
        concurrency=_number(environment, contract.CONCURRENCY),
        memory_bytes=_number(environment, contract.MEMORY_BYTES),
        settle=timedelta(seconds=_whole(environment, contract.SETTLE_SECONDS, 5)),
        drain=timedelta(seconds=_number(environment, contract.DRAIN_SECONDS) or 300),
        log_level=level,
        log_format=form,
    )


def _address(environment: Mapping[str, str]) -> tuple[str, int]:
    text = _required(environment, contract.XDS_ADDRESS, "the control plane as host:port")
    return host_and_port(contract.XDS_ADDRESS, text, example="gwanmun.gwanmun-system.svc:18000")


def _required(environment: Mapping[str, str], name: str, meaning: str) -> str:
    if value := environment.get(name):
        return value
    raise UserError(f"{name} is not set; it has to be {meaning}")


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """None where it is not set, or zero: Kubernetes says so of a limit that there is not."""
    return _whole(environment, name, 0) or None


def _whole(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not (text.isascii() and text.isdigit()):
        raise UserError(f'{name} "{text}" is not a whole number')
    return int(text)


def _bootstrap_of(options: ProxyOptions, rundir: RunDir, credentials: Credentials, *, module: bool) -> bytes:
    endpoint = XdsEndpoint(
        options.xds_host, options.xds_port, options.xds_server_name, credentials.ca_secret, credentials.token_secret
    )
    module_path = rundir.path / contract.MODULE_NAME if module else None
    claims = {
        "gateway": options.gateway,
        "pod": options.pod,
        "node": options.node,
        "zone": options.zone,
        "module": str(module_path or ""),
    }
    return serialize_bootstrap(
        bootstrap(
            BootstrapOptions(
                node_id=options.pod,
                node_cluster=options.gateway,
                admin=rundir.admin_socket,
                xds_socket=endpoint,
                zone=options.zone or None,
                max_heap_bytes=None if options.memory_bytes is None else container_heap(options.memory_bytes),
                metadata={name: value for name, value in claims.items() if value},
                json_logs=options.log_format == "json",
                module=module_path,
            )
        )
    )


@dataclass(slots=True)
class Proxy:
    """One Envoy from start to end. `run` returns when it is over; `stop` asks for the end."""

    options: ProxyOptions
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _child: asyncio.subprocess.Process | None = None
    _admin: Admin = field(init=False)
    _rundir: RunDir = field(init=False)

    def __post_init__(self) -> None:
        self._rundir = RunDir(self.options.run_directory, self.options.gateway)
        self._admin = Admin(self._rundir.admin_socket)

    def stop(self) -> None:
        """From now on not ready; requests that are under way are finished."""
        self._stopping.set()

    async def run(self) -> int:
        """Serve until `stop`, then drain. Returns the exit code: 0 after a stop, else Envoy's or 1.

        Raises UserError where it cannot even begin.
        """
        binary = _the_envoy()
        self._prepare()
        credentials = Credentials(self.options.token_file, self.options.ca_file, self._rundir)
        listener = _listen(self.options)
        async with serving(self._application(), listener):
            if not await self._have(credentials):
                return 0
            child = self._child = await self._start(binary, credentials)
            renewing = asyncio.create_task(self._keep_fresh(credentials))
            try:
                return await self._until_the_end(child)
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
                await end_child(child)

    async def _have(self, credentials: Credentials) -> bool:
        """Whether they came before the end was asked for."""
        waiting = asyncio.create_task(wait_for_credentials(credentials, patience=60))
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not waiting.done():
            waiting.cancel()
            return False
        try:
            waiting.result()
        except CredentialsError as error:
            raise UserError(str(error)) from None
        return True

    def _prepare(self) -> None:
        """The run directory, with a link to the module at the path that the control plane knows."""
        try:
            self._rundir.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._rundir.remove_sockets()
            link = self._rundir.path / contract.MODULE_NAME
            link.unlink(missing_ok=True)
            if MODULE.exists():
                link.symlink_to(MODULE)
        except OSError as error:
            raise UserError(f"{self._rundir.path} cannot be written to: {error.strerror}") from None

    async def _start(self, binary: EnvoyBinary, credentials: Credentials) -> asyncio.subprocess.Process:
        options = self.options
        content = _bootstrap_of(options, self._rundir, credentials, module=MODULE.exists())
        command = child_command(
            binary,
            self._rundir.write("bootstrap.json", content),
            concurrency=options.concurrency,
            log_level=options.log_level,
            drain_seconds=int(options.drain.total_seconds()),
        )
        child = await start_child(command)
        log.info(
            "envoy_started", pid=child.pid, gateway=options.gateway, control_plane=f"{options.xds_host}:{options.xds_port}"
        )
        return child

    async def _until_the_end(self, child: asyncio.subprocess.Process) -> int:
        ended = asyncio.create_task(child.wait())
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._drain(ended)
            if not ended.done():
                return 0
            log.error("envoy_ended", code=ended.result())
            return ended.result() or 1
        finally:
            ended.cancel()
            stopped.cancel()

    async def _drain(self, ended: asyncio.Task[int]) -> None:
        """Not ready, and answers ask clients to go elsewhere; then, when no new requests come, wait for the old ones."""
        began = time.monotonic()
        settle, grace = self.options.settle, self.options.drain
        log.info("draining", seconds=(settle + grace).total_seconds())
        with contextlib.suppress(AdminError):  # busy, perhaps; that it gives no answer does not mean that it serves nobody
            if (await self._admin.server_info()).state in ("PRE_INITIALIZING", "INITIALIZING"):
                return  # it never served: nobody is to be waited for
            await self._admin.fail_health_checks()
        await asyncio.wait((ended,), timeout=settle.total_seconds())
        unfinished = await drain(self._admin, grace, gone=ended.done)
        log.info("drained", seconds=round(time.monotonic() - began, 1), unfinished=unfinished)

    async def _keep_fresh(self, credentials: Credentials) -> None:
        while True:
            # A kubelet tells nobody that it has renewed a file. A token is renewed long before it expires.
            await asyncio.sleep(self.options.refresh_seconds)
            try:
                changed = await asyncio.to_thread(credentials.refresh)
            except (CredentialsError, OSError) as error:  # the next look may find it mended; without any, the token expires
                log.warning("credentials_unreadable", message=str(error))
            else:
                if changed:
                    log.info("credentials_renewed", files=changed)

    def _application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/ready", self._answer_ready),
                Route("/healthz", self._answer_health),
                Route("/metrics", AFew(self._answer_metrics, most=_SCRAPES), methods=["GET"]),
            ]
        )

    async def _answer_ready(self, _: Request) -> Response:
        obstacle = await self._not_ready()
        return PlainTextResponse("ready\n") if obstacle is None else PlainTextResponse(f"{obstacle}\n", 503)

    async def _not_ready(self) -> str | None:
        """Why no request should be sent here; None if they should."""
        if self._stopping.is_set():
            return "draining"
        if self._child is None:
            return "waiting for credentials"
        try:
            if (await self._admin.server_info()).state != "LIVE":
                return "waiting for the first configuration"
        except AdminError:
            return "waiting for Envoy"
        # An empty configuration is a whole one, that of a Gateway whose listeners all lack something: it is not for its pods
        # to be counted as broken. A Gateway that the control plane does not know yet gets no configuration at all.
        return None

    async def _answer_health(self, _: Request) -> Response:
        if self._child is None or self._stopping.is_set():
            return PlainTextResponse("ok\n")  # starting or ending: neither gets better by being killed
        try:
            await self._admin.server_info()
        except AdminError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return PlainTextResponse("ok\n")

    async def _answer_metrics(self, _: Request) -> Response:
        if self._child is None:
            return PlainTextResponse("Envoy has not started yet\n", 503)
        pieces = self._metrics()
        try:
            first = await anext(pieces)  # before an answer has begun there can still be another one
        except AdminError as error:
            return PlainTextResponse(f"{error}\n", 503)
        return StreamingResponse(_with(first, pieces), media_type="text/plain; version=0.0.4")

    async def _metrics(self) -> AsyncGenerator[bytes, None]:
        """Our own, then Envoy's and the module's as they come: with thousands of backends they are larger than what this
        program may hold."""
        own = f"# TYPE gwanmun_proxy_draining gauge\ngwanmun_proxy_draining {int(self._stopping.is_set())}\n"
        async with contextlib.AsyncExitStack() as stack:
            sources = [self._admin.prometheus()]
            if MODULE.exists():
                sources.append(self._admin.module_metrics())
            opened = [await stack.enter_async_context(source) for source in sources]
            yield own.encode()
            for pieces in opened:
                async for piece in pieces:
                    yield piece


async def _with(first: bytes, others: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(others):
        yield first
        async for other in others:
            yield other


def _the_envoy() -> EnvoyBinary:
    try:
        return find_envoy()
    except EnvoyBinaryError as error:
        raise UserError(str(error)) from None


def _listen(options: ProxyOptions) -> socket.socket:
    try:
        return listening_socket(options.status_port, options.status_address)
    except OSError as error:
        raise UserError(f"port {options.status_port} for /ready and /metrics cannot be bound: {error.strerror}") from None


async def run_proxy(options: ProxyOptions) -> int:
    """Run a proxy whose end is asked for by SIGTERM or SIGINT. Returns the exit code."""
    os.umask(0o077)  # the run directory has the token in it
    proxy = Proxy(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, proxy.stop)
    return await proxy.run()
