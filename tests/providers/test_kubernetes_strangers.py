"""Something else answers where the API server was: a login page, a redirect, nothing at all. That is no end of the world."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from lightkube.config.kubeconfig import KubeConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

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
    application = Starlette(routes=[Route("/{path:path}", say)])
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


async def test_a_watch_that_is_sent_elsewhere_does_not_go_there() -> None:
    async with answered_with(REDIRECT) as client:
        with pytest.raises(ApiError) as refused:
            async with client.stream(SERVICES, {"watch": "true"}):
                pass
    assert refused.value.code == 307
