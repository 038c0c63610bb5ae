"""Certificates of cert-manager for listeners."""

from typing import Any

import pytest

from fleet.test_objects import INPUTS, OPTIONS, loaded
from gateway_class import GATEWAY_CLASS
from gwanmun.api import Gateway, ListenerSet
from gwanmun.api.load import load_text
from gwanmun.app.fleets import Fleets
from gwanmun.infra.fleet.apply import Owner
from gwanmun.infra.fleet.certificates import Issuer, certificates_for
from gwanmun.names import NamespacedName
from gwanmun.resolve.model import Resolver
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot, key_of

LISTENERS = """
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: gw, namespace: ai, uid: u1, annotations: {annotations}}}
spec:
  {parent}
  listeners:
    - {{name: a, protocol: HTTPS, port: 443, hostname: a.example.com, tls: {{certificateRefs: [{{name: shared}}]}}}}
    - {{name: b, protocol: HTTPS, port: 443, hostname: b.io, tls: {{certificateRefs: [{{name: shared}}, {{name: b}}]}}}}
    - {{name: any, protocol: HTTPS, port: 8443, tls: {{certificateRefs: [{{name: nameless}}]}}}}
    - {{name: far, protocol: HTTPS, port: 9443, hostname: c.io, tls: {{certificateRefs: [{{name: far, namespace: x}}]}}}}
    - {{name: tls, protocol: TLS, port: 7443, hostname: d.example.com, tls: {{mode: Passthrough}}}}
    - {{name: http, protocol: HTTP, port: 80, hostname: a.example.com}}
"""


def owner(kind: str = "Gateway", annotations: str = "{}") -> Any:
    parent = "gatewayClassName: gwanmun" if kind == "Gateway" else "parentRef: {name: parent}"
    found = load_text(LISTENERS.format(kind=kind, annotations=annotations, parent=parent), "listeners.yaml")
    assert not [str(problem) for problem in found.problems if problem.severity == "error"]
    return found.objects[0].object


@pytest.mark.parametrize("kind", ["Gateway", "ListenerSet"])
def test_one_for_each_secret_with_all_its_hostnames(kind: str) -> None:
    found = owner(kind)
    assert isinstance(found, Gateway | ListenerSet)
    certificates = certificates_for([found], Issuer("letsencrypt-prod"))
    assert [(one["spec"]["secretName"], one["spec"]["dnsNames"]) for one in certificates] == [
        ("b", ["b.io"]),
        ("shared", ["a.example.com", "b.io"]),
    ]
    assert {one["metadata"]["ownerReferences"][0]["kind"] for one in certificates} == {kind}


def test_of_the_specifications_gateway() -> None:
    gateway, _ = loaded(next(path for path in INPUTS if path.name.startswith("specification")))
    grpc, https = certificates_for([gateway], Issuer("letsencrypt-prod"), instance="test")
    assert grpc["spec"]["secretName"] == "inference-grpc-tls-cert"
    assert https == {
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": {
            "name": "inference-tls-cert",
            "namespace": "ai-gateway",
            "labels": {
                "gateway.networking.k8s.io/gateway-name": "ai-inference-gateway",
                "app.kubernetes.io/managed-by": "gwanmun",
                "gwanmun.dev/fleet": "test",
            },
            "ownerReferences": [
                {
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "Gateway",
                    "name": "ai-inference-gateway",
                    "uid": gateway.metadata.uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            "secretName": "inference-tls-cert",
            "dnsNames": ["inference.example.com"],
            "issuerRef": {"name": "letsencrypt-prod", "kind": "ClusterIssuer", "group": "cert-manager.io"},
            "privateKey": {"rotationPolicy": "Always"},
            "usages": ["digital signature", "key encipherment", "server auth"],
        },
    }


def test_cert_managers_own_annotations_leave_it_to_cert_manager() -> None:
    assert certificates_for([owner(annotations="{cert-manager.io/cluster-issuer: mine}")], Issuer("ours")) == ()


SHARING = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {namespace}, uid: {name}, creationTimestamp: "{created}"}}
spec:
  gatewayClassName: gwanmun
  allowedListeners: {{namespaces: {{from: Same}}}}
  listeners:
    - {{name: a, protocol: HTTPS, port: 443, hostname: {name}.example.com, tls: {{certificateRefs: [{{name: shared}}]}}}}
"""
MORE = (
    GATEWAY_CLASS
    + """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more, namespace: ai, uid: more, creationTimestamp: "2026-01-03T00:00:00Z"}
spec:
  parentRef: {name: young}
  listeners:
    - {name: b, protocol: HTTPS, port: 443, hostname: b.example.com, tls: {certificateRefs: [{name: shared}]}}
    - {name: c, protocol: HTTPS, port: 443, hostname: c.example.com, tls: {certificateRefs: [{name: its-own}]}}
"""
)
OLD = SHARING.format(name="old", namespace="ai", created="2026-01-01T00:00:00Z")
YOUNG = SHARING.format(name="young", namespace="ai", created="2026-01-02T00:00:00Z")
ELSEWHERE = SHARING.format(name="elsewhere", namespace="far", created="2026-01-01T00:00:00Z")


def issued(fleets: Fleets, *documents: str) -> set[NamespacedName]:
    """The Gateways whose objects are others now that there are these documents."""
    loads = [load_text(text, "shared.yaml") for text in (MORE, *documents)]
    snapshot, changed = Snapshot().apply({key_of(one.object): one.object for load in loads for one in load.objects})
    redone, _ = fleets.update(snapshot, Resolver(Settings()).update(snapshot, changed), {})
    return redone


def shared_by(fleets: Fleets, gateway: NamespacedName) -> dict[Owner, list[Any]]:
    """What the Gateway and its ListenerSets have of Certificates."""
    found = fleets.objects(gateway) or {}
    return {owner: [one for one in objects if one["kind"] == "Certificate"] for owner, objects in found.items()}


def test_who_name_one_secret_share_one_certificate() -> None:
    fleets = Fleets(lambda: OPTIONS, lambda _: None, Issuer("acme"))
    issued(fleets, YOUNG, OLD, ELSEWHERE)
    ((certificate,),) = shared_by(fleets, NamespacedName("ai", "old")).values()
    assert certificate["spec"]["dnsNames"] == ["b.example.com", "old.example.com", "young.example.com"]
    references = certificate["metadata"]["ownerReferences"]
    assert [(one["kind"], one["name"], one["controller"]) for one in references] == [
        ("Gateway", "old", True),
        ("Gateway", "young", False),
        ("ListenerSet", "more", False),
    ]
    assert certificate["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"] == "old"
    theirs = shared_by(fleets, NamespacedName("ai", "young"))
    assert theirs[Owner("Gateway", "ai", "young")] == [certificate]
    its_own, shared = theirs[Owner("ListenerSet", "ai", "more")]
    assert (its_own["spec"]["dnsNames"], shared) == (["c.example.com"], certificate)
    ((far,),) = shared_by(fleets, NamespacedName("far", "elsewhere")).values()
    assert far["spec"]["dnsNames"] == ["elsewhere.example.com"]


def test_who_share_a_certificate_are_looked_at_when_one_of_them_goes() -> None:
    fleets = Fleets(lambda: OPTIONS, lambda _: None, Issuer("acme"))
    issued(fleets, OLD, YOUNG, ELSEWHERE)
    assert issued(fleets, YOUNG, ELSEWHERE) == {NamespacedName("ai", "old"), NamespacedName("ai", "young")}
    (certificate,) = shared_by(fleets, NamespacedName("ai", "young"))[Owner("Gateway", "ai", "young")]
    assert certificate["spec"]["dnsNames"] == ["b.example.com", "young.example.com"]
    assert issued(fleets, YOUNG, ELSEWHERE) == set()
