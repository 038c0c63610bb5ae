"""Certificates of cert-manager for listeners."""

from typing import Any

import pytest

from fleet.test_objects import INPUTS, loaded
from gwanmun.api import Gateway, ListenerSet
from gwanmun.api.load import load_text
from gwanmun.infra.fleet.certificates import Issuer, certificates_for

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
    certificates = certificates_for(found, Issuer("letsencrypt-prod"))
    assert [(one["spec"]["secretName"], one["spec"]["dnsNames"]) for one in certificates] == [
        ("b", ["b.io"]),
        ("shared", ["a.example.com", "b.io"]),
    ]
    assert {one["metadata"]["ownerReferences"][0]["kind"] for one in certificates} == {kind}


def test_of_the_specifications_gateway() -> None:
    gateway, _ = loaded(next(path for path in INPUTS if path.name.startswith("specification")))
    grpc, https = certificates_for(gateway, Issuer("letsencrypt-prod"), instance="test")
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
    assert certificates_for(owner(annotations="{cert-manager.io/cluster-issuer: mine}"), Issuer("ours")) == ()
