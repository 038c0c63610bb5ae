"""What proxies are to be like while the GatewayClassConfig that says so may be there and cannot be read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from fleet.test_objects import OPTIONS
from gwanmun.api.load import load_text
from gwanmun.app.controller import Controller, ControllerOptions
from gwanmun.app.fleets import Fleets, ParametersKey
from gwanmun.infra.fleet.apply import Hindrance, Owner, Problem
from gwanmun.infra.fleet.contract import PROVISIONAL
from gwanmun.infra.fleet.objects import OF_PARAMETERS
from gwanmun.kube import Present
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.providers.kubernetes.provider import Unread
from gwanmun.resolve.model import Resolver
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot, key_of

CLASS = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gwanmun}
spec:
  controllerName: gwanmun.dev/gateway-controller
  parametersRef: {group: gwanmun.dev, kind: GatewayClassConfig, name: edge}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ai, uid: gw}
spec:
  gatewayClassName: gwanmun
  listeners: [{name: http, protocol: HTTP, port: 8080}]
"""
CONFIG = """
apiVersion: gwanmun.dev/v1alpha1
kind: GatewayClassConfig
metadata: {name: edge}
spec: {proxy: {replicas: 5}}
"""
GW = NamespacedName("ai", "gw")
UNREAD = Problem("no", "list them", serving=False)


def snapshot_of(*documents: str) -> Snapshot:
    loads = [load_text(text, "given.yaml") for text in documents]
    snapshot, _ = Snapshot().apply({key_of(one.object): one.object for load in loads for one in load.objects})
    return snapshot


def looked_at(
    fleets: Fleets, snapshot: Snapshot, made: Mapping[ObjectKey, frozenset[Owner]] = MappingProxyType({})
) -> set[NamespacedName]:
    redone, _ = fleets.update(snapshot, Resolver(Settings()).update(snapshot, frozenset()), made)
    return redone


def deployment(fleets: Fleets) -> Any:
    objects = fleets.objects(GW)
    assert objects is not None
    return next(one for one in objects[Owner("Gateway", *GW)] if one["kind"] == "Deployment")


def test_only_what_may_be_there_unseen_holds_up_a_fleet() -> None:
    asked: list[ParametersKey] = []
    why: list[Problem | None] = [None]
    fleets = Fleets(lambda: OPTIONS, lambda key: asked.append(key) or why[0])
    looked_at(fleets, snapshot_of(CLASS))
    assert fleets.hindrance(GW) is None  # it does not exist: a mistake, and the defaults are in force
    assert PROVISIONAL not in deployment(fleets)["metadata"].get("annotations", {})
    why[0] = UNREAD
    assert fleets.hindrance(GW) == Hindrance(UNREAD, OF_PARAMETERS)
    assert set(asked) == {ParametersKey("gwanmun.dev", "edge")}
    assert PROVISIONAL in deployment(fleets)["metadata"]["annotations"]
    assert looked_at(fleets, snapshot_of(CLASS, CONFIG)) == {GW}
    assert fleets.hindrance(GW) is None
    assert deployment(fleets)["spec"]["replicas"] == 5


class Blind:
    def unread(self, group: str, kind: str, name: str) -> Unread:
        return Unread(f"{kind}s of {group} may not be listed", 'apiGroups: ["gwanmun.dev"]')


def test_the_class_says_what_to_grant() -> None:
    controller = Controller(ControllerOptions(OPTIONS))
    controller.provider = Blind()  # type: ignore[assignment]  # a stand-in
    controller._snapshot = snapshot_of(CLASS)
    controller._resolution = Resolver(Settings()).update(controller._snapshot, frozenset())
    key = ObjectKey("gateway.networking.k8s.io", "GatewayClass", "", "gwanmun")
    document = controller.document_of(key, Present("gateway.networking.k8s.io/v1", "u", "7", 1, None))
    assert document is not None
    accepted = next(one for one in document["conditions"] if one["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidParameters")
    assert accepted["message"] == (
        "spec.parametersRef: GatewayClassConfig edge cannot be read: GatewayClassConfigs of gwanmun.dev may not be listed; "
        'proxies that are there stay as they are; grant the controller apiGroups: ["gwanmun.dev"]'
    )
