"""What is written to the API server while objects change and go away under the writer's hands."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gwanmun.api.decode import decode_json
from gwanmun.api.kinds import KINDS
from gwanmun.kube import KubeClient, Present
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
    return Present(route.api_version, name, version, 1, route.status)  # type: ignore[union-attr]


class SlowServer(KubeClient):
    """An API server that answers when it is told to; it gives every write the version "written"."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.came = asyncio.Condition()
        self.writes: list[tuple[str, str, list[str]]] = []

    async def call(self, method: str, path: str, **options: Any) -> bytes:
        name, body = path.split("/")[-2], options["body"]
        parents = [one["controllerName"] for one in body["status"]["parents"]]
        async with self.came:
            self.writes.append((name, body["metadata"]["resourceVersion"], parents))
            self.came.notify_all()
        await self.answers.wait()
        return document(name, "written", *parents)

    async def until(self, writes: int) -> None:
        async with asyncio.timeout(10), self.came:
            await self.came.wait_for(lambda: len(self.writes) >= writes)


@asynccontextmanager
async def writing(server: SlowServer, *names: str) -> AsyncIterator[StatusWriter]:
    """A writer with two slots that has something to say of every object. It must be alive in the end."""
    options = WriterOptions(frozenset({OURS}), concurrency=2, per_second=10_000, settle=0.0, retry=0.01)
    clock = asyncio.get_running_loop().time
    writer = StatusWriter(server, options, lambda _: {"parents": [entry(OURS)]}, clock=clock, now=lambda: THEN)
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
