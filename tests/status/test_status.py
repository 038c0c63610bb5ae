"""Conditions as people and programs see them."""

from gwanmun.api.load import load_text
from gwanmun.names import ObjectKey
from gwanmun.resolve.model import resolve
from gwanmun.resolve.status import Condition, Statuses
from gwanmun.resources import Snapshot, key_of
from gwanmun.status import healthy, rows, status_document

GROUP = "gateway.networking.k8s.io"
MANIFESTS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gwanmun, generation: 3}
spec: {controllerName: gwanmun.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, generation: 7}
spec: {gatewayClassName: gwanmun, listeners: [{name: web, port: 80, protocol: HTTP}, {name: tls, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: none}]}}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, generation: 9}
spec:
  parentRefs: [{name: gw, sectionName: web}, {name: gw, sectionName: nothing}]
  rules: [{backendRefs: [{name: nobody, port: 80}]}]
"""  # noqa: E501  a manifest on one line


def statuses() -> Statuses:
    loaded = load_text(MANIFESTS, "a.yaml")
    assert not loaded.problems
    snapshot, _ = Snapshot().apply({key_of(item.object): item.object for item in loaded.objects})
    return resolve(snapshot).statuses


def test_rows_are_in_the_order_of_the_specification_with_parts_below() -> None:
    assert [(row.kind, row.name, row.part, row.healthy, row.attached_routes) for row in rows(statuses())] == [
        ("GatewayClass", "gwanmun", "", True, None),
        ("Gateway", "gw", "", False, None),
        ("Gateway", "gw", "web", True, 1),
        ("Gateway", "gw", "tls", False, 0),
        ("HTTPRoute", "r", "Gateway gw#web", False, None),
        ("HTTPRoute", "r", "Gateway gw#nothing", False, None),
    ]


def test_details_say_what_is_wrong_and_nothing_else() -> None:
    found = {row.part: row.details for row in rows(statuses()) if row.kind == "HTTPRoute"}
    assert [detail.split(":")[0:2] for detail in found["Gateway gw#web"]] == [["ResolvedRefs", " BackendNotFound"]]
    assert any(detail.startswith("Accepted: NoMatchingParent: ") for detail in found["Gateway gw#nothing"])


def test_conditions_that_are_good_when_false() -> None:
    assert healthy(Condition("Conflicted", False, "NoConflicts"))
    assert not healthy(Condition("Conflicted", True, "HostnameConflict"))
    assert healthy(Condition("OverlappingTLSConfig", True, "OverlappingHostnames"))  # advice
    assert healthy(Condition("Accepted", True, "Accepted"))
    assert not healthy(Condition("Accepted", None, "Pending"))


def test_documents_have_the_fields_of_the_api() -> None:
    found = statuses()
    gateway = status_document(found[ObjectKey(GROUP, "Gateway", "default", "gw")])
    assert [listener["name"] for listener in gateway["listeners"]] == ["web", "tls"]
    assert gateway["listeners"][0]["attachedRoutes"] == 1
    assert {"group": GROUP, "kind": "HTTPRoute"} in gateway["listeners"][0]["supportedKinds"]
    assert {condition["observedGeneration"] for condition in gateway["conditions"]} == {7}
    route = status_document(found[ObjectKey(GROUP, "HTTPRoute", "default", "r")])
    assert [parent["parentRef"] for parent in route["parents"]] == [
        {"group": GROUP, "kind": "Gateway", "name": "gw", "sectionName": "web"},
        {"group": GROUP, "kind": "Gateway", "name": "gw", "sectionName": "nothing"},
    ]
    assert {parent["controllerName"] for parent in route["parents"]} == {"gwanmun.dev/gateway-controller"}
    gateway_class = status_document(found[ObjectKey(GROUP, "GatewayClass", "", "gwanmun")])
    assert {"name": "HTTPRoute"} in gateway_class["supportedFeatures"]
    assert gateway_class["conditions"][0]["observedGeneration"] == 3
