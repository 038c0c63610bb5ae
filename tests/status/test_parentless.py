"""What stands on objects whose parent was deleted: no longer what was true of them once."""

from typing import Any

import pytest

from fleet.test_objects import OPTIONS
from gateway_class import GATEWAY_CLASS
from gwanmun.api.decode import decode_object
from gwanmun.api.kinds import KINDS
from gwanmun.api.load import load_text
from gwanmun.app.cluster import ClusterPicture, status_report
from gwanmun.app.controller import Controller, ControllerOptions, _listener_sets
from gwanmun.kube import Present
from gwanmun.names import ObjectKey
from gwanmun.providers.kubernetes.provider import Unread
from gwanmun.providers.kubernetes.trim import present
from gwanmun.resolve.model import Resolver
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot, key_of
from gwanmun.status.merge import merged

GATEWAY = """---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ai, generation: 3}
spec:
  gatewayClassName: gwanmun
  listeners: [{name: http, protocol: HTTP, port: 80}]
  allowedListeners: {namespaces: {from: All}}
"""
LISTENER_SET = """---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: team, generation: 2}
spec:
  parentRef: {name: gw, namespace: ai}
  listeners: [{name: other, protocol: HTTP, port: 8080}]
"""
GW = ObjectKey("gateway.networking.k8s.io", "Gateway", "ai", "gw")
SET = ObjectKey("gateway.networking.k8s.io", "ListenerSet", "team", "more")
OURS, OTHERS = "gwanmun-controller", "another-controller"
THEN, NOW = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"


class Provider:
    """What is not known is not there, but for the kinds that are `hidden`."""

    def __init__(self, *hidden: str) -> None:
        self.hidden = hidden

    def unread(self, group: str, kind: str, name: str, namespace: str = "") -> Unread | None:
        return Unread("no") if kind in self.hidden else None


def controller(*documents: str, hidden: tuple[str, ...] = ()) -> Controller:
    """One that sees these objects."""
    found = Controller(ControllerOptions(OPTIONS))
    found.provider = Provider(*hidden)  # type: ignore[assignment]  # a stand-in
    objects = [one.object for text in documents for one in load_text(text, "given.yaml").objects]
    found._snapshot, _ = Snapshot().apply({key_of(one): one for one in objects})
    found._resolution = Resolver(Settings()).update(found._snapshot, frozenset())
    return found


def there(key: ObjectKey, status: dict[str, Any], *authors: str) -> Present:
    """As the API server has it, with a status that these wrote."""
    manifest = {
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}},
                *({"manager": author, "subresource": "status", "fieldsV1": {}} for author in authors),
            ],
        },
        "spec": {"gatewayClassName": "gwanmun", "parentRef": {"name": "gw"}, "listeners": []},
        "status": status,
    }
    found = present(decode_object(manifest, KINDS[key.group, key.kind]))
    assert found is not None
    return found


def condition(type_: str, status: str = "True") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": type_, "observedGeneration": 1, "lastTransitionTime": THEN}


SERVED = {
    "conditions": [condition("Accepted"), condition("Programmed")],
    "listeners": [{"name": "other", "supportedKinds": [], "attachedRoutes": 1, "conditions": [condition("Programmed")]}],
}


def said(document: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    assert document is not None
    return [(one["type"], one["status"], one["reason"]) for one in document["conditions"]]


def test_a_listener_set_whose_gateway_is_gone_says_so() -> None:
    before = there(SET, SERVED, OURS)
    document = controller(GATEWAY_CLASS, LISTENER_SET).document_of(SET, before)
    assert said(document) == [("Accepted", "False", "ParentNotAccepted"), ("Programmed", "False", "ParentNotProgrammed")]
    written = merged(document, before, controllers=frozenset(), now=NOW)
    assert written is not None
    assert "Gateway ai/gw does not exist" in written["conditions"][0]["message"]
    assert {one["lastTransitionTime"] for one in written["conditions"]} == {NOW}
    assert written["listeners"] == []
    assert merged(document, there(SET, written, OURS), controllers=frozenset(), now=NOW) is None


@pytest.mark.parametrize("authors", [(), (OTHERS,)])
def test_what_others_wrote_is_theirs(authors: tuple[str, ...]) -> None:
    assert controller(GATEWAY_CLASS, LISTENER_SET).document_of(SET, there(SET, SERVED, *authors)) is None


def test_a_gateway_that_cannot_be_seen_may_be_there() -> None:
    hidden = controller(GATEWAY_CLASS, LISTENER_SET, hidden=("Gateway",))
    assert hidden.document_of(SET, there(SET, SERVED, OURS)) is None


@pytest.mark.parametrize("key", [GW, SET])
def test_without_its_class_a_gateway_serves_on_and_says_what_to_do(key: ObjectKey) -> None:
    before = there(key, SERVED, OURS)
    document = controller(GATEWAY, LISTENER_SET).document_of(key, before)
    assert said(document) == [("Accepted", "Unknown", "Pending"), ("Programmed", "Unknown", "Pending")]
    written = merged(document, before, controllers=frozenset(), now=NOW)
    assert written is not None
    assert written.keys() == {"conditions"}, "where it is reached stays"
    assert written["conditions"][0]["message"].startswith(
        "GatewayClass gwanmun does not exist; proxies that are there serve on"
    )
    assert merged(document, there(key, SERVED | written, OURS), controllers=frozenset(), now=NOW) is None
    assert controller(GATEWAY, LISTENER_SET).document_of(key, there(key, SERVED, OTHERS)) is None
    assert controller(GATEWAY, LISTENER_SET, hidden=("GatewayClass",)).document_of(key, before) is None


@pytest.mark.parametrize("key", [GW, SET])
def test_of_what_is_another_controllers_nothing_is_said(key: ObjectKey) -> None:
    others = GATEWAY_CLASS.replace("gwanmun.dev/gateway-controller", "another.dev/controller")
    assert controller(others, GATEWAY, LISTENER_SET).document_of(key, there(key, SERVED, OURS)) is None


def test_listener_sets_are_looked_at_when_their_gateway_comes_or_goes() -> None:
    snapshot = controller(LISTENER_SET)._snapshot
    assert _listener_sets(snapshot, {GW}) == [SET]
    assert _listener_sets(snapshot, {SET}) == []


def test_the_status_of_a_cluster_shows_gateways_of_ours_without_a_class() -> None:
    snapshot = controller(GATEWAY)._snapshot
    document = controller(GATEWAY).document_of(GW, there(GW, SERVED, OURS))
    assert document is not None
    ours, others = (ClusterPicture(snapshot, {GW: there(GW, SERVED | document, one)}, ()) for one in (OURS, OTHERS))
    report = status_report(ours, frozenset({"gwanmun.dev/gateway-controller"}))
    assert not report["healthy"]
    assert "GatewayClass gwanmun does not exist" in report["problems"][0]
    assert status_report(others, frozenset({"gwanmun.dev/gateway-controller"}))["objects"] == []
