"""`/healthz`, `/readyz` and `/metrics` of the controller."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from gwanmun.app.errors import UserError
from gwanmun.app.serving import AFew, listening_socket, serving
from gwanmun.app.words import is_port

_SCRAPES: Final = 4


class Watched(Protocol):
    """What is told about."""

    @property
    def ready(self) -> tuple[bool, str]: ...
    @property
    def registry(self) -> CollectorRegistry: ...


@asynccontextmanager
async def health_server(listen: str, watched: Watched) -> AsyncIterator[None]:
    """Answer on "address:port" until the block ends. Raises UserError where it cannot be bound."""
    address, _, port = listen.rpartition(":")
    if not is_port(port):
        raise UserError(f'--metrics-listen "{listen}" is not ADDRESS:PORT, such as 0.0.0.0:9090')
    try:
        socket = listening_socket(int(port), "" if address in ("", "0.0.0.0", "::", "[::]") else address.strip("[]"))  # noqa: S104  what is asked for
    except OSError as error:
        raise UserError(f'--metrics-listen "{listen}": {error}') from None
    async with serving(_application(watched), socket):
        yield


def _application(watched: Watched) -> Starlette:
    async def healthz(_: Request) -> Response:
        # That this is answered says all: it runs on the loop that does the work.
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready, why = watched.ready
        return PlainTextResponse(f"{why}\n", status_code=200 if ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(watched.registry), media_type=CONTENT_TYPE_LATEST)

    routes: list[Any] = [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", AFew(metrics, most=_SCRAPES), methods=["GET"]),
    ]
    return Starlette(routes=routes)
