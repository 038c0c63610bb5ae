"""A small HTTP server inside a program that has its own signals and its own end.

Anybody who reaches the port can open connections, and probes decide whether a pod lives. So nothing is refused because others
are connected: whoever is silent or slow is hung up on, and makes room for who comes.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import request_response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

_MOST_CONNECTIONS: Final = 64
_REQUEST_S: Final = 5.0
_ANSWER_S: Final = 30.0


def listening_socket(port: int, address: str = "") -> socket.socket:
    """A TCP socket on all addresses of both families, or on one. Raises OSError."""
    if address:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return socket.create_server((address, port), family=family)
    if socket.has_dualstack_ipv6():
        # A machine may have the family switched off.
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


@asynccontextmanager
async def serving(application: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    """Answer on the socket until the block ends."""
    config = uvicorn.Config(
        application, http=_Connection, log_config=None, lifespan="off", access_log=False, server_header=False
    )
    server = uvicorn.Server(config)
    # Not `serve`, which takes over the process's signal handlers.
    running = asyncio.create_task(server._serve(sockets=[listener]))
    try:
        while not server.started and not running.done():  # noqa: ASYNC110  uvicorn tells nobody when it has started
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = server.force_exit = True
        await running
        listener.close()


class AFew:
    """An endpoint, as an ASGI application, that answers so many requests at once, each to its last byte; the others get 503."""

    def __init__(self, endpoint: Callable[[Request], Awaitable[Response]], *, most: int) -> None:
        self._answer = request_response(endpoint)
        self._most = most
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._under_way >= self._most:
            busy = PlainTextResponse(f"{self._most} such requests are being answered already\n", 503)
            await busy(scope, receive, send)
            return
        self._under_way += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self._under_way -= 1


class _Connection(H11Protocol):
    """uvicorn's, with an end to patience: a whole request comes within `_REQUEST_S`, and its answer is taken within
    `_ANSWER_S`. Beyond `_MOST_CONNECTIONS` the one goes that has been silent for longest."""

    since: float = 0.0
    """When it was last waited for a request to begin."""
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's, too
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > _MOST_CONNECTIONS:
            _first_to_go(self.connections).hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._patience is not None:
            self._patience.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._wait()  # first: super() begins with the next request where that has come already
        super().on_response_complete()

    @property
    def busy(self) -> bool:
        """Whether it is our turn, or the other side has yet to take what we have said."""
        cycle = self.cycle
        asked = cycle is not None and not cycle.more_body
        return asked and (not cycle.response_complete or self.transport.get_write_buffer_size() > 0)

    def hang_up(self) -> None:
        # Not `close`, which waits for the other side to take everything.
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self) -> None:
        self.since = self.loop.time()
        self._look_again(_REQUEST_S)

    def _look_again(self, seconds: float) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        left = self.since + _ANSWER_S - self.loop.time()
        if self.busy and left > 0:
            self._look_again(left)
        else:
            self.hang_up()


def _first_to_go(connections: Iterable[Any]) -> _Connection:
    """Of those that nobody is waiting on the oldest; the newest where there is none."""
    everyone: list[_Connection] = sorted(connections, key=lambda one: one.since)
    return next((one for one in everyone if not one.busy), everyone[-1])
