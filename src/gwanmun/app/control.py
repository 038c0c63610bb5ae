"""The control socket of a running gateway: how `status`, `xds`, `explain` and `down` ask the `up` of the same folder.

HTTP over a unix socket in the run directory, which only its owner can enter. Read-only but for `stop`.
"""

import asyncio
import os
from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gwanmun.app.errors import UserError
from gwanmun.explain import Request as ExplainedRequest
from gwanmun.explain import Served
from gwanmun.infra.launch import find_envoys
from gwanmun.infra.rundir import RunDir, named_path, run_directory

SOCKET = "control.sock"
_LONG_POLL_S = 30.0
_LAST_ANSWERS_S = 2
_MAX_BODY = 64 * 1024 * 1024


class Controlled(Protocol):
    """What a running gateway can be asked."""

    def status(self) -> dict[str, Any]: ...
    async def changed(self, after: int) -> None: ...
    def envoy_configuration(self, kind: str, name: str) -> dict[str, Any]: ...
    def explain(self, request: ExplainedRequest, served: Served | None) -> dict[str, Any]: ...
    def request_stop(self) -> None: ...


@asynccontextmanager
async def control_server(gateway: Controlled, directory: Path) -> AsyncIterator[None]:
    """Serve the socket until the block ends."""
    socket = directory / SOCKET
    socket.unlink(missing_ok=True)  # we hold the directory's lock: whoever left it is dead
    closing = asyncio.Event()
    server = uvicorn.Server(
        uvicorn.Config(
            _application(gateway, closing),
            uds=str(socket),
            log_config=None,
            lifespan="off",
            access_log=False,
            timeout_graceful_shutdown=_LAST_ANSWERS_S,
        )
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # signals are the gateway's
    serving = asyncio.create_task(_serve(server))
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110  uvicorn tells nobody when it has started
            await asyncio.sleep(0.005)
        yield
    finally:
        closing.set()
        server.should_exit = True
        await serving
        socket.unlink(missing_ok=True)


async def _serve(server: uvicorn.Server) -> None:
    # Not `serve`, which takes over the process's signal handlers.
    await server._serve()


def _application(gateway: Controlled, closing: asyncio.Event) -> Starlette:
    """`closing` ends the waits of those who watch, who would otherwise be cut off."""

    async def status(request: Request) -> JSONResponse:
        after = int(request.query_params.get("after", "-1"))
        waits = [asyncio.create_task(gateway.changed(after)), asyncio.create_task(closing.wait())]
        try:
            await asyncio.wait(waits, timeout=_LONG_POLL_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return JSONResponse(gateway.status())

    async def xds(request: Request) -> JSONResponse:
        try:
            shown = gateway.envoy_configuration(request.query_params.get("kind", ""), request.query_params.get("name", ""))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(shown)

    async def explain(request: Request) -> JSONResponse:
        asked = await request.json()
        served = Served(**asked["served"]) if asked["served"] is not None else None
        try:
            about = ExplainedRequest.of(asked["method"], asked["url"], asked["headers"], b64decode(asked["body"]))
            told = await asyncio.to_thread(gateway.explain, about, served)  # a large body takes seconds
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(told)

    async def stop(_: Request) -> JSONResponse:
        gateway.request_stop()
        return JSONResponse({"stopping": os.getpid()})

    return Starlette(
        routes=[
            Route("/status", status),
            Route("/xds", xds),
            Route("/explain", explain, methods=["POST"]),
            Route("/stop", stop, methods=["POST"]),
        ]
    )


class NotRunningError(UserError):
    """No control plane serves the folder, though Envoy may; a socket may lie there from one that was killed."""


class ControlClient:
    """Asks the gateway of a folder. `ask` raises NotRunningError where none runs, UserError for what it refuses."""

    def __init__(self, rundir: RunDir, folder: str) -> None:
        self._rundir = rundir
        self._folder = folder

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "ControlClient":
        """The one that serves these paths: the first names the run directory."""
        return cls(run_directory(paths[0], os.environ, make=False), str(named_path(paths[0])))

    async def ask(self, method: str, path: str, *, content: dict[str, Any] | None = None, **query: str) -> dict[str, Any]:
        # A unix socket: no authorities to read (which takes longer than the call), no proxy to ask.
        transport = httpx.AsyncHTTPTransport(uds=str(self._rundir.path / SOCKET), verify=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://gwanmun", timeout=_LONG_POLL_S + 5, trust_env=False
        ) as client:
            try:
                response = await client.request(method, path, params=query, json=content)
            except httpx.TransportError:
                raise NotRunningError(self._nobody_answers()) from None
        if response.status_code not in (httpx.codes.OK, httpx.codes.BAD_REQUEST):
            raise UserError(f"the gateway of {self._folder} could not answer ({response.status_code}); its own output says why")
        told: dict[str, Any] = response.json()
        if response.status_code != httpx.codes.OK:
            raise UserError(told["error"])
        return told

    def _nobody_answers(self) -> str:
        if left := find_envoys(self._rundir):
            return (
                f"Envoy (process {left[-1].pid}) serves {self._folder} on as it was told last, but its control plane is gone"
                f' and no change is followed; "gwanmun up {self._folder}" takes it over, "gwanmun down {self._folder}" ends it'
            )
        return f'no gateway serves {self._folder}; start one with "gwanmun up {self._folder}"'

    async def status(self, after: int = -1) -> dict[str, Any]:
        """The gateway's state; with `after` not before it is another than that version."""
        return await self.ask("GET", "/status", after=str(after))
