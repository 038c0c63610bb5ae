"""A small HTTP server inside a program that has its own signals and its own end."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette

_MOST_CONNECTIONS = 64


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
        application, log_config=None, lifespan="off", access_log=False, limit_concurrency=_MOST_CONNECTIONS, server_header=False
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
