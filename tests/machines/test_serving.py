"""The port of probes: it answers whoever asks, however many others are connected and say nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from gwanmun.app import serving as serving_module
from gwanmun.app.serving import AFew, listening_socket, serving

ASK = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n"
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server:
    """`/ready` answers at once, `/slow` when it is let, `/endless` as long as somebody listens."""

    def __init__(self) -> None:
        self.let = asyncio.Event()
        self.port = 0
        self.slow = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        async def ready(_: Request) -> Response:
            return PlainTextResponse("ready\n")

        async def slow(_: Request) -> Response:
            self.slow += 1
            await self.let.wait()
            return PlainTextResponse("at last\n")

        async def endless(_: Request) -> Response:
            return StreamingResponse(zeros())

        routes = [Route("/ready", ready), Route("/slow", AFew(slow, most=2)), Route("/endless", AFew(endless, most=1))]
        listener = listening_socket(0, "127.0.0.1")
        self.port = listener.getsockname()[1]
        async with serving(Starlette(routes=routes), listener):
            yield self
            self.let.set()

    async def connect(self) -> Connection:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, path: bytes) -> str:
        reader, writer = await self.connect()
        writer.write(ASK % path)
        async with asyncio.timeout(5):
            status = await reader.readline()
        writer.close()
        return status.decode().split(" ", 1)[-1].strip()


async def zeros() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0)
        yield bytes(65_536)


async def ended(connection: Connection) -> bool:
    """Whether the other side hangs up within two seconds."""
    try:
        async with asyncio.timeout(2):
            return await connection[0].read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_silent_connections_hold_up_no_probe() -> None:
    async with Server().running() as server:
        silent = [await server.connect() for _ in range(300)]
        for _ in range(3):
            assert await server.ask(b"/ready") == "200 OK"
        assert await ended(silent[0])


async def test_a_request_that_is_being_answered_is_not_given_up_for_silent_ones() -> None:
    async with Server().running() as server:
        asked = asyncio.create_task(server.ask(b"/slow"))
        async with asyncio.timeout(5):
            while not server.slow:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        silent = [await server.connect() for _ in range(300)]
        server.let.set()
        assert await asked == "200 OK"
        assert silent


@pytest.mark.parametrize("said", [b"", b"GET /rea", b"POST /ready HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n"])
async def test_who_sends_no_whole_request_is_hung_up_on(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "_REQUEST_S", 0.3)
    async with Server().running() as server:
        connection = await server.connect()
        connection[1].write(said)
        assert await ended(connection)


async def test_who_does_not_take_his_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "_REQUEST_S", 0.1)
    monkeypatch.setattr(serving_module, "_ANSWER_S", 0.4)
    async with Server().running() as server:
        _, writer = await server.connect()
        writer.write(ASK % b"/endless")
        await asyncio.sleep(0.2)
        assert await server.ask(b"/endless") == "503 Service Unavailable"
        await asyncio.sleep(0.5)
        assert await server.ask(b"/endless") == "200 OK"


async def test_what_is_dear_is_answered_to_a_few_at_once_and_the_rest_to_all() -> None:
    async with Server().running() as server:
        asked = [asyncio.create_task(server.ask(b"/slow")) for _ in range(2)]
        async with asyncio.timeout(5):
            while server.slow < 2:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        assert await server.ask(b"/slow") == "503 Service Unavailable"
        assert await server.ask(b"/ready") == "200 OK"
        server.let.set()
        assert await asyncio.gather(*asked) == ["200 OK"] * 2
        assert await server.ask(b"/slow") == "200 OK"
