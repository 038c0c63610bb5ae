"""Following an API server that lacks kinds, refuses some, forgets versions and goes away. It is scripted, the client real."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from lightkube.config.kubeconfig import KubeConfig
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gwanmun.api.kinds import KINDS, MADE_KINDS
from gwanmun.app.serving import listening_socket, serving
from gwanmun.kube import Connection, KubeClient, client
from gwanmun.providers.kubernetes import Batch, KubernetesOptions, KubernetesProvider, metadata_of, provider

GROUP = "gateway.networking.k8s.io"
WANTED = (KINDS[GROUP, "TCPRoute"], KINDS["", "Service"])
TOO_OLD: dict[str, Any] = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}


class ApiServer:
    """Answers lists and watches. `served` are the paths that exist; `refused` those that are forbidden."""

    def __init__(self) -> None:
        self.served = {"/api/v1/services", f"/apis/{GROUP}/v1alpha2/tcproutes"}
        self.refused: set[str] = set()
        self.items: dict[str, list[dict[str, Any]]] = {}
        self.version = 100
        self.remembers = True
        self.mute = False
        self.watched_from: list[tuple[str, str]] = []
        self.asked_for: set[tuple[str, str]] = set()  # by labels, and how much of the objects
        self._streams: list[tuple[str, asyncio.Queue[bytes | None]]] = []

    def put(self, path: str, name: str, kind: str = "ADDED") -> None:
        self.version += 1
        version, metadata = (
            ("v1", {"namespace": "ai"}) if path.startswith("/api/") else (f"{GROUP}/v1alpha2", {"namespace": "ai"})
        )
        spec: dict[str, Any] = {"rules": []} if "tcproutes" in path else {"ports": [{"port": 80}]}
        item = {
            "apiVersion": version,
            "metadata": {**metadata, "name": name, "resourceVersion": str(self.version)},
            "spec": spec,
        }
        self.items.setdefault(path, []).append(item)
        self._say(path, {"type": kind, "object": item})

    def forget(self, path: str) -> None:
        """End the watch with 410, as after a compaction."""
        self.version += 1
        self._say(path, TOO_OLD)

    def hang_up(self) -> None:
        for _, queue in self._streams:
            queue.put_nowait(None)

    def _say(self, path: str, event: dict[str, Any]) -> None:
        for watched, queue in self._streams:
            if watched == path:
                queue.put_nowait(json.dumps(event).encode() + b"\n")

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.asked_for.add((request.query_params.get("labelSelector", ""), request.headers["accept"]))
        if path in self.refused:
            return JSONResponse({"kind": "Status", "reason": "Forbidden", "message": "no"}, 403)
        if path not in self.served:
            return Response("404 page not found", 404)
        if request.query_params.get("watch"):
            self.watched_from.append((path, request.query_params["resourceVersion"]))
            if self.mute:
                await asyncio.sleep(60)
            if not self.remembers:
                return Response(json.dumps(TOO_OLD) + "\n")
            queue: asyncio.Queue[bytes | None] = asyncio.Queue()
            self._streams.append((path, queue))
            return StreamingResponse(_drained(queue), media_type="application/json")
        items = self.items.get(path, [])
        start = int(request.query_params.get("continue", "0"))
        size = int(request.query_params["limit"])
        rest = str(start + size) if start + size < len(items) else ""
        metadata = {"resourceVersion": str(self.version), "continue": rest}
        return JSONResponse({"metadata": metadata, "items": items[start : start + size]})


async def _drained(queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (piece := await queue.get()) is not None:
        yield piece[:7]
        yield piece[7:]


Batches = AsyncGenerator[Batch, None]
Followed = tuple[ApiServer, KubernetesProvider, Batches]


@pytest.fixture
async def followed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Followed]:
    monkeypatch.setattr(provider, "_LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(provider, "_FORBIDDEN_AGAIN_S", 0.05)
    api = ApiServer()
    async with following(api, KubernetesOptions(kinds=WANTED, aliases={})) as (provider_, batches):
        yield api, provider_, batches


@asynccontextmanager
async def following(api: ApiServer, options: KubernetesOptions) -> AsyncIterator[tuple[KubernetesProvider, Batches]]:
    socket = listening_socket(0, "127.0.0.1")
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    async with serving(Starlette(routes=[Route("/{path:path}", api.answer)]), socket):
        config = KubeConfig.from_server(url).get()
        assert config is not None
        async with KubeClient(Connection(config, "default")) as client:
            found = KubernetesProvider(client, options, draw=lambda: 0.5)
            async with aclosing(found.watch()) as batches:
                yield found, batches
        api.hang_up()


async def names(batches: AsyncGenerator[Batch, None]) -> dict[str, bool]:
    """What the next batch changes, and whether it is there."""
    async with asyncio.timeout(5):
        batch = await anext(batches)
    return {f"{key.kind} {key.name}": obj is not None for key, obj in batch.objects.items()}


SERVICES, ROUTES = "/api/v1/services", f"/apis/{GROUP}/v1alpha2/tcproutes"


async def test_the_first_batch_is_everything_in_whatever_version_is_served(followed: Followed) -> None:
    api, following, batches = followed
    for i in range(provider.PAGE + 3):
        api.put(SERVICES, f"s{i}")
    api.put(ROUTES, "old-bundle")
    first = await names(batches)
    assert len(first) == provider.PAGE + 4
    assert first["TCPRoute old-bundle"]
    assert following.synced


async def test_what_happens_later_comes_as_it_happens(followed: Followed) -> None:
    api, _, batches = followed
    assert await names(batches) == {}
    await until(lambda: len(api.watched_from) == 2)
    api.put(SERVICES, "new")
    assert await names(batches) == {"Service new": True}
    api.put(SERVICES, "new", "DELETED")
    assert await names(batches) == {"Service new": False}


async def test_of_what_is_made_only_the_metadata_is_asked_for_and_only_of_our_own() -> None:
    api = ApiServer()
    services = tuple(kind for kind in MADE_KINDS if kind.kind == "Service")
    async with following(api, metadata_of(services, {"ours": "yes", "and": "more"}, ())) as (_, batches):
        assert await names(batches) == {}
        await until(lambda: len(api.watched_from) == 1)
        api.put(SERVICES, "new")
        assert await names(batches) == {"Service new": True}
    (labels,) = {labels for labels, _ in api.asked_for}
    assert labels == "ours=yes,and=more"
    assert {how.split(";")[1] for _, how in api.asked_for} == {"as=PartialObjectMetadataList", "as=PartialObjectMetadata"}


async def test_a_kind_is_picked_up_when_its_crd_appears(followed: Followed) -> None:
    api, _, batches = followed
    api.served.discard(ROUTES)
    api.put(ROUTES, "early")
    assert await names(batches) == {}
    api.served.add(ROUTES)
    assert await names(batches) == {"TCPRoute early": True}


async def test_a_kind_that_is_refused_holds_up_no_other(followed: Followed) -> None:
    api, following, batches = followed
    api.refused.add(ROUTES)
    api.refused.add(f"/apis/{GROUP}/v1/tcproutes")
    api.put(ROUTES, "hidden")
    api.put(SERVICES, "seen")
    assert await names(batches) == {"Service seen": True}
    assert following.refused == ("tcproutes.gateway.networking.k8s.io",)
    api.refused.clear()
    assert await names(batches) == {"TCPRoute hidden": True}
    assert following.refused == ()


async def test_a_watch_that_breaks_goes_on_from_where_it_was(followed: Followed) -> None:
    api, _, batches = followed
    await names(batches)
    await until(lambda: len(api.watched_from) == 2)
    api.put(SERVICES, "one")
    await names(batches)
    at = str(api.version)
    api.hang_up()
    await until(lambda: (SERVICES, at) in api.watched_from)
    api.put(SERVICES, "two")
    assert await names(batches) == {"Service two": True}


async def test_after_410_only_the_difference_is_told(followed: Followed) -> None:
    api, following, batches = followed
    api.put(SERVICES, "stays")
    api.put(SERVICES, "goes")
    await names(batches)
    await until(lambda: len(api.watched_from) == 2)
    api.items[SERVICES].pop()
    api.forget(SERVICES)
    assert await names(batches) == {"Service goes": False}
    assert following.stats.relists == 1


async def test_an_api_server_that_forgets_at_once_is_not_asked_for_everything_all_the_time(followed: Followed) -> None:
    api, following, batches = followed
    api.remembers = False
    await names(batches)
    await until(lambda: following.stats.relists >= 2)
    before = following.stats.relists
    await asyncio.sleep(0.5)
    assert following.stats.relists <= before + 6, "of two kinds"
    api.put(SERVICES, "listed")
    assert await names(batches) == {"Service listed": True}


async def test_a_watch_that_is_never_answered_is_begun_again(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    api, _, batches = followed
    monkeypatch.setattr(client, "_TIMEOUT_S", 0.2)
    await names(batches)
    await until(lambda: len(api.watched_from) == 2)
    api.mute = True
    api.hang_up()
    await until(lambda: len(api.watched_from) == 6)
    api.mute = False
    before = len(api.watched_from)
    await until(lambda: len(api.watched_from) == before + 2)
    await asyncio.sleep(0.4)  # longer than the first answer may take
    assert len(api.watched_from) == before + 2, "what has begun may be silent"
    api.put(SERVICES, "heard")
    assert await names(batches) == {"Service heard": True}


async def until(holds: Any) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110  the scripted server tells nobody what it was asked
            await asyncio.sleep(0.01)


async def test_it_ends_when_it_is_told_to_even_if_there_is_news_at_that_moment(followed: Followed) -> None:
    _, following, batches = followed
    await names(batches)

    async def follow() -> None:
        async for _ in batches:
            pass

    task = asyncio.create_task(follow())
    following._news.set()
    for _ in range(5):  # until it waits for the end of the burst
        await asyncio.sleep(0)
    following._news.set()
    task.cancel()
    ended, _ = await asyncio.wait([task], timeout=2)
    assert ended
