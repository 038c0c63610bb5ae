"""What is written to the API server while objects change and go away under the writer's hands."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gwanmun.api.decode import decode_json
from gwanmun.api.kinds import KINDS
from gwanmun.kube import ApiError, KubeClient, Present
from gwanmun.names import ObjectKey
from gwanmun.status.writer import StatusWriter, WriterOptions

OURS, OTHER = "gwanmun.dev/gateway-controller", "example.com/other"
ROUTE = KINDS["gateway.networking.k8s.io", "HTTPRoute"]
THEN = "2026-01-01T00:00:00Z"


def key(name: str) -> ObjectKey:
    return ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "ai", name)


def entry(controller: str) -> dict[str, Any]:
    condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 1}
    return {
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"},
        "controllerName": controller,
        "conditions": [condition | {"lastTransitionTime": THEN}],
    }


def document(name: str, version: str, *controllers: str) -> bytes:
    metadata = {"name": name, "namespace": "ai", "uid": name, "resourceVersion": version, "generation": 1}
    status = {"parents": [entry(controller) for controller in controllers]}
    kind = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}
    return json.dumps(kind | {"metadata": metadata, "spec": {}, "status": status}).encode()


def present(name: str, version: str, *controllers: str) -> Present:
    route = decode_json(document(name, version, *controllers), ROUTE)
    return Present(route.api_version, name, version, 1, route.status)  # type: ignore[union-attr]  # a route has one


class SlowServer(KubeClient):
    """An API server that answers when it is told to; it gives every write the version "written"."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.came = asyncio.Condition()
        self.writes: list[tuple[str, str, list[str]]] = []
        self.refusal: ApiError | None = None

    async def call(self, method: str, path: str, **options: Any) -> bytes:
        name, body = path.split("/")[-2], options["body"]
        parents = [one["controllerName"] for one in body["status"]["parents"]]
        async with self.came:
            self.writes.append((name, body["metadata"]["resourceVersion"], parents))
            self.came.notify_all()
        await self.answers.wait()
        if self.refusal is not None:
            raise self.refusal
        return document(name, "written", *parents)

    async def until(self, writes: int) -> None:
        async with asyncio.timeout(10), self.came:
            await self.came.wait_for(lambda: len(self.writes) >= writes)


@asynccontextmanager
async def writing(server: SlowServer, *names: str, pauses: tuple[float, ...] = (60.0,)) -> AsyncIterator[StatusWriter]:
    """A writer with two slots that has something to say of every object. It must be alive in the end."""
    options = WriterOptions(
        frozenset({OURS}), concurrency=2, per_second=10_000, settle=0.001, retry=0.01, retry_refused=0.01, pauses=pauses
    )
    clock = asyncio.get_running_loop().time
    writer = StatusWriter(server, options, lambda *_: {"parents": [entry(OURS)]}, clock=clock, now=lambda: THEN)
    writer.lead(True)
    writer.observe({key(name): present(name, "1") for name in names})
    task = asyncio.create_task(writer.run())
    try:
        yield writer
        await asyncio.sleep(0)
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_deleted_while_it_waits_is_not_written() -> None:
    server = SlowServer()
    async with writing(server, "a", "b", "c", "d") as writer:
        await server.until(2)
        writer.observe({key("c"): None})
        server.answers.set()
        await server.until(3)
    assert [name for name, _, _ in server.writes] == ["a", "b", "d"]


async def test_what_others_wrote_while_it_waits_is_kept() -> None:
    server = SlowServer()
    async with writing(server, "a", "b", "c") as writer:
        await server.until(2)
        writer.observe({key("c"): present("c", "2", OTHER)})
        server.answers.set()
        await server.until(3)
    name, version, parents = server.writes[-1]
    assert (name, version, set(parents)) == ("c", "2", {OURS, OTHER})


async def test_an_answer_that_comes_late_does_not_hide_what_is_newer() -> None:
    server = SlowServer()
    async with writing(server, "a") as writer:
        await server.until(1)
        writer.observe({key("a"): present("a", "3", OTHER)})  # ours, undone by somebody, who was seen before the answer
        server.answers.set()
        await server.until(2)
    assert server.writes[1][1] == "3"


async def test_who_does_not_lead_remembers_nothing_of_what_is_gone() -> None:
    server = SlowServer()
    async with writing(server) as writer:
        writer.lead(False)
        writer.observe({key("a"): present("a", "1")})
        writer.observe({key("a"): None})
        assert writer.backlog == 0


RIGHT = ApiError(
    403, "Forbidden", 'User "x" cannot patch resource "httproutes/status" in API group "gateway.networking.k8s.io"'
)
QUOTA = ApiError(403, "Forbidden", "exceeded quota: few")
ENDING = ApiError(403, "Forbidden", "unable to create new content in namespace ai because it is being terminated")


async def refused(writer: StatusWriter, server: SlowServer, refusal: ApiError, version: str) -> None:
    """Both objects are refused again and again, then taken."""
    server.refusal = refusal
    writer.observe({key(name): present(name, version) for name in ("a", "b")})
    await server.until(len(server.writes) + 6)
    server.refusal = None
    async with asyncio.timeout(10):
        while writer.backlog:  # noqa: ASYNC110 - a writer has no event for having nothing to do
            await asyncio.sleep(0.01)


async def test_a_missing_right_is_told_once_and_again_when_it_is_missing_again() -> None:
    server = SlowServer()
    server.answers.set()
    with capture_logs() as logs:
        async with writing(server) as writer:
            await refused(writer, server, RIGHT, "1")
            assert [one["event"] for one in logs] == ["status_not_written"]
            await refused(writer, server, RIGHT, "2")
    assert ["httproutes/status" in one["grant"] for one in logs] == [True, True]


@pytest.mark.parametrize(("code", "reason"), [(429, "TooManyRequests"), (500, "InternalError"), (503, "ServiceUnavailable")])
async def test_an_api_server_that_cannot_write_just_now_is_complained_of_once(code: int, reason: str) -> None:
    server = SlowServer()
    server.answers.set()
    with capture_logs() as logs:
        async with writing(server) as writer:
            await refused(writer, server, ApiError(code, reason, "not now"), "1")
    assert [one["problem"] for one in logs] == ["not now"]


async def test_only_a_missing_right_asks_for_a_grant() -> None:
    server = SlowServer()
    server.answers.set()
    with capture_logs() as logs:
        async with writing(server) as writer:
            await refused(writer, server, QUOTA, "1")
            await refused(writer, server, ENDING, "2")
    assert {one["problem"] for one in logs} == {"exceeded quota: few"}
    assert not any("grant" in one for one in logs)


async def test_what_is_gone_is_not_tried_again() -> None:
    server = SlowServer()
    server.refusal = RIGHT
    with capture_logs() as logs:
        async with writing(server, "a") as writer:
            await server.until(1)
            writer.observe({key("a"): None})
            server.answers.set()
            await asyncio.sleep(0.05)
            assert writer.backlog == 0
    assert (len(server.writes), logs) == (1, [])


class Rival:
    """Another installation by the same name: changes back at once whatever is written, as long as it likes."""

    def __init__(self, server: SlowServer, writer: StatusWriter) -> None:
        self._server, self._writer = server, writer

    async def undo(self, times: int) -> None:
        for _ in range(times):
            await self._server.until(1)
            written = len(self._server.writes)
            self._writer.observe({key("a"): present("a", f"undone-{written}", OTHER)})
            await self._server.until(written + 1)


async def test_who_is_contradicted_again_and_again_gives_way_and_says_so_once() -> None:
    server = SlowServer()
    server.answers.set()
    with capture_logs() as logs:
        async with writing(server, "a", "b", pauses=(0.05, 0.3)) as writer:
            await server.until(2)
            rival, began = Rival(server, writer), asyncio.get_running_loop().time()
            await rival.undo(3)
            quick = asyncio.get_running_loop().time() - began
            await rival.undo(1)
            await rival.undo(2)
            slow = asyncio.get_running_loop().time() - began - quick
    assert quick < 0.5 < slow
    ((event, subject),) = [(one["event"], one["object"]) for one in logs]
    assert (event, subject) == ("status_contested", str(key("a")))
    assert "--controller-name" in logs[0]["remedy"]


async def test_other_objects_are_written_while_one_is_contested() -> None:
    server = SlowServer()
    server.answers.set()
    async with writing(server, "a") as writer:
        await Rival(server, writer).undo(3)
        writer.observe({key("a"): present("a", "undone", OTHER), key("b"): present("b", "1")})
        await server.until(5)
        await asyncio.sleep(0.05)
        assert [name for name, _, _ in server.writes] == ["a", "a", "a", "a", "b"]
        assert writer.backlog == 1


async def test_whoever_has_something_new_to_say_contradicts_nobody() -> None:
    server = SlowServer()
    server.answers.set()
    said = entry(OURS)
    options = WriterOptions(frozenset({OURS}), per_second=10_000, settle=0.001)
    clock = asyncio.get_running_loop().time
    writer = StatusWriter(server, options, lambda *_: {"parents": [said]}, clock=clock, now=lambda: THEN)
    writer.lead(True)
    task = asyncio.create_task(writer.run())
    with capture_logs() as logs:
        for round_ in range(6):
            said["conditions"][0]["message"] = f"turn {round_}"
            writer.observe({key("a"): present("a", str(round_))})
            await server.until(round_ + 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert logs == []


async def test_an_api_server_that_knows_fewer_fields_contradicts_nobody() -> None:
    class Forgetful(SlowServer):
        async def call(self, method: str, path: str, **options: Any) -> bytes:
            answer = json.loads(await super().call(method, path, **options))
            del answer["status"]["parents"][0]["conditions"][0]["observedGeneration"]
            return json.dumps(answer).encode()

    server = Forgetful()
    server.answers.set()
    with capture_logs() as logs:
        async with writing(server, "a") as writer:
            for writes in range(1, 7):
                await server.until(writes)
                writer.touch(key("a"))
    assert logs == []


async def test_an_object_made_again_is_no_quarrel() -> None:
    server = SlowServer()
    server.answers.set()
    with capture_logs() as logs:
        async with writing(server, "a") as writer:
            for round_ in range(1, 7):
                await server.until(round_)
                writer.observe({key("a"): None})
                writer.observe({key("a"): present("a", f"again-{round_}")})
    assert logs == []
