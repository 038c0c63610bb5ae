"""Something else answers where the API server was: a login page, a redirect, nothing at all. That is no end of the world."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from lightkube.config.kubeconfig import KubeConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gwanmun.app.reviews import token_review
from gwanmun.app.serving import listening_socket, serving
from gwanmun.kube import ApiError, Connection, KubeClient, UnreachableError

SERVICES = "/api/v1/services"
REDIRECT = RedirectResponse("/login")


@asynccontextmanager
async def answered_with(answer: Response) -> AsyncIterator[KubeClient]:
    """A client whose every request is answered like that."""

    async def say(_: Request) -> Response:
        return answer

    listener = listening_socket(0, "127.0.0.1")
    config = KubeConfig.from_server(f"http://127.0.0.1:{listener.getsockname()[1]}").get()
    assert config is not None
    application = Starlette(routes=[Route("/{path:path}", say, methods=["GET", "PATCH", "POST"])])
    async with serving(application, listener), KubeClient(Connection(config, "ai")) as client:
        yield client


@pytest.mark.parametrize(
    "answer",
    [
        HTMLResponse("<html>Log in</html>"),
        REDIRECT,
        Response(b""),
        Response(b"\xff\xfe", headers={"content-encoding": "gzip"}),
    ],
    ids=["page", "redirect", "nothing", "garbage"],
)
async def test_what_is_no_object_counts_as_no_answer(answer: Response) -> None:
    async with answered_with(answer) as client:
        with pytest.raises(UnreachableError):
            await client.get(SERVICES)


CUT = b'{"kind": "Service", "metadata": {"name": "vl'


@pytest.mark.parametrize("content", [CUT, b"{}x", b'{"kind": "\xff"}'], ids=["cut", "more", "no-text"])
async def test_what_begins_as_an_object_and_is_none_counts_as_no_answer(content: bytes) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "vllm", "namespace": "ai"}}
    async with answered_with(Response(content)) as client:
        with pytest.raises(UnreachableError):
            await client.get(SERVICES)
        with pytest.raises(UnreachableError):
            await client.apply(service)


@pytest.mark.parametrize(
    "content",
    [b'{"status": {"authenticated": tr', b'{"status": 5}', b'{"status": {"user": []}}', b'{"status": {"error": "\xff"}}'],
    ids=["cut", "status", "user", "no-text"],
)
async def test_a_review_that_cannot_be_read_refuses_nobody(content: bytes) -> None:
    async with answered_with(Response(content)) as client:
        with pytest.raises(TimeoutError, match="cannot be checked at the moment"):
            await token_review(client, "gwanmun-xds")("token")


@pytest.mark.parametrize("code", [302, 307])
async def test_a_watch_that_is_sent_elsewhere_does_not_go_there(code: int) -> None:
    async with answered_with(RedirectResponse("/login", code)) as client:
        with pytest.raises(UnreachableError, match=str(code)):
            async with client.stream(SERVICES, {"watch": "true"}):
                pass


async def test_a_watch_that_is_refused_says_so() -> None:
    async with answered_with(Response(b"no", 403)) as client:
        with pytest.raises(ApiError):
            async with client.stream(SERVICES, {"watch": "true"}):
                pass
