"""Which turns of conditions become Events."""

import asyncio
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from gwanmun.api.gateway import GatewayStatus
from gwanmun.api.references import RouteStatus
from gwanmun.kube import ApiError, KubeClient, Present
from gwanmun.names import ObjectKey
from gwanmun.status.events import EventWriter, Note, event, notes

GATEWAY = ObjectKey("gateway.networking.k8s.io", "Gateway", "ai", "gw")
ROUTE = ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "ai", "chat")


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def gateway(*before: dict[str, Any]) -> GatewayStatus:
    return msgspec.convert({"conditions": list(before)}, GatewayStatus)


def parents(*conditions: dict[str, Any]) -> dict[str, Any]:
    reference = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}
    return {"parents": [{"parentRef": reference, "controllerName": "ours", "conditions": list(conditions)}]}


def test_a_gateway_that_serves_is_news() -> None:
    document = {"conditions": [condition("Accepted", "True", "Accepted"), condition("Programmed", "True", "Programmed")]}
    assert list(notes(GATEWAY, gateway(), document)) == [Note("Normal", "Programmed", "the condition Programmed holds")]


def test_what_stands_already_is_not_told_again() -> None:
    programmed = condition("Programmed", "True", "Programmed")
    assert list(notes(GATEWAY, gateway(programmed), {"conditions": [programmed]})) == []


def test_a_gateway_that_stops_serving_says_why() -> None:
    now = {"conditions": [condition("Programmed", "False", "AddressNotUsable", "10.0.0.1 is taken")]}
    found = list(notes(GATEWAY, gateway(condition("Programmed", "True", "Programmed")), now))
    assert found == [Note("Warning", "AddressNotUsable", "Programmed is False: 10.0.0.1 is taken")]


def test_what_is_only_not_there_yet_is_no_event() -> None:
    assert list(notes(GATEWAY, gateway(), {"conditions": [condition("Programmed", "False", "Pending", "soon")]})) == []


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_what_is_pending_after_it_held_is_one(status: str) -> None:
    now = {"conditions": [condition("Programmed", status, "Pending", "no proxy is ready")]}
    found = list(notes(GATEWAY, gateway(condition("Programmed", "True", "Programmed")), now))
    assert found == [Note("Warning", "Pending", f"Programmed is {status}: no proxy is ready")]
    waiting = gateway(condition("Programmed", "False", "AddressNotAssigned"))
    assert list(notes(GATEWAY, waiting, now)) == []


def test_of_a_route_only_what_is_wrong_is_told() -> None:
    good = parents(condition("Accepted", "True", "Accepted"), condition("ResolvedRefs", "True", "ResolvedRefs"))
    assert list(notes(ROUTE, RouteStatus(), good)) == []
    bad = parents(condition("Accepted", "True", "Accepted"), condition("ResolvedRefs", "False", "BackendNotFound", "no vllm"))
    note = Note("Warning", "BackendNotFound", "for Gateway gw: ResolvedRefs is False: no vllm")
    assert list(notes(ROUTE, msgspec.convert(good, RouteStatus), bad)) == [note]
    assert list(notes(ROUTE, msgspec.convert(bad, RouteStatus), bad)) == []


def test_an_event_names_its_object() -> None:
    present = Present("gateway.networking.k8s.io/v1", "uid-1", "7", 1, None)
    found = event(GATEWAY, present, Note("Normal", "Programmed", "x" * 5000), namespace="ai", now="now", serial=1)
    assert found["involvedObject"]["uid"] == "uid-1"
    assert len(found["message"]) == 1000


class Refusing(KubeClient):
    """An API server that answers with these, one after the other; None: it takes the event."""

    def __init__(self, *answers: ApiError | None) -> None:
        self.left = list(answers)
        self.done = asyncio.Event()

    async def call(self, method: str, path: str, **options: Any) -> bytes:
        answer = self.left.pop(0)
        if not self.left:
            self.done.set()
        if answer is not None:
            raise answer
        return b"{}"


RIGHT = ApiError(403, "Forbidden", 'User "x" cannot create resource "events" in API group ""')
ENDING = ApiError(403, "Forbidden", "unable to create new content in namespace ai because it is being terminated")


@pytest.mark.parametrize(
    ("answers", "told"),
    [((RIGHT, RIGHT), 1), ((RIGHT, None, RIGHT), 2), ((ENDING,), 0), ((ApiError(403, "Forbidden", "exceeded quota: few"),), 0)],
)
async def test_a_missing_right_is_told_once_until_it_is_there(
    answers: tuple[ApiError | None, ...], told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gwanmun.status.events._PER_SECOND", 1000.0)
    server = Refusing(*answers)
    writer = EventWriter(server, clock=lambda: 0.0, now=lambda: "now")
    present = Present("gateway.networking.k8s.io/v1", "uid-1", "7", 1, None)
    writer.tell(GATEWAY, present, [Note("Warning", "Invalid", str(number)) for number in range(len(answers))])
    with capture_logs() as logs:
        task = asyncio.create_task(writer.run())
        async with asyncio.timeout(10):
            await server.done.wait()
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [one["event"] for one in logs] == ["events_refused"] * told
