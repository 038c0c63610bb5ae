"""cert-manager's Certificates for listeners that terminate TLS. Pure.

A Secret has one Certificate, however many Gateways and ListenerSets name it: two would issue into it in turn without end.
Deliberately absent: reading the Secrets that come of them, which are like any others.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from gwanmun.api import Gateway, ListenerSet
from gwanmun.api.listener import Listener
from gwanmun.infra.fleet.contract import GATEWAY_LABEL
from gwanmun.infra.fleet.naming import document, label_value, ours, owner_reference

CERT_MANAGER_GROUP: Final = "cert-manager.io"
_SHIM: Final = ("cert-manager.io/issuer", "cert-manager.io/cluster-issuer")
_MODES: Final = {"HTTPS", "TLS"}


@dataclass(frozen=True, slots=True)
class Issuer:
    """cert-manager's Issuer (of the Gateway's namespace) or ClusterIssuer."""

    name: str
    kind: str = "ClusterIssuer"
    group: str = CERT_MANAGER_GROUP


def certificates_for(
    owners: Iterable[Gateway | ListenerSet], issuer: Issuer, *, instance: str = "gwanmun"
) -> tuple[dict[str, Any], ...]:
    """A Certificate for each Secret that a listener with a hostname names, with the hostnames of all that name it.

    It belongs to all whose listeners these are, so that Kubernetes keeps it until the last is gone; the oldest comes first.
    None for Secrets of other namespaces, which are their owners' affair, nor for owners that carry cert-manager's own
    annotations: cert-manager then makes their Certificates itself.
    """
    found: dict[tuple[str, str], tuple[list[Gateway | ListenerSet], set[str]]] = {}
    for owner in sorted(owners, key=_seniority):
        if any(name in owner.metadata.annotations for name in _SHIM):
            continue
        for listener in owner.spec.listeners:
            for secret in _secrets(owner, listener):
                sharers, hostnames = found.setdefault((owner.metadata.namespace, secret), ([], set()))
                if owner not in sharers:
                    sharers.append(owner)
                hostnames.add(listener.hostname or "")
    return tuple(
        _certificate(sharers, issuer, instance, secret, sorted(hostnames))
        for (_, secret), (sharers, hostnames) in sorted(found.items(), key=lambda one: one[0])
    )


def _seniority(owner: Gateway | ListenerSet) -> tuple[str, str, str]:
    return owner.metadata.creation_timestamp or "", owner.KIND, owner.metadata.name


def _secrets(owner: Gateway | ListenerSet, listener: Listener) -> tuple[str, ...]:
    """Names of the Secrets of this namespace that hold the listener's certificates."""
    tls = listener.tls
    if listener.protocol not in _MODES or not listener.hostname or tls is None or tls.mode != "Terminate":
        return ()
    return tuple(
        ref.name
        for ref in tls.certificate_refs
        if (ref.group, ref.kind) == ("", "Secret") and ref.namespace in (None, owner.metadata.namespace)
    )


def _certificate(
    sharers: list[Gateway | ListenerSet], issuer: Issuer, instance: str, secret: str, hostnames: list[str]
) -> dict[str, Any]:
    first = sharers[0]
    metadata = {
        "name": secret,
        "namespace": first.metadata.namespace,
        "labels": {GATEWAY_LABEL: label_value(_gateway_of(first)), **ours(instance)},
        # Only one of the references may say that it is the controller's.
        "ownerReferences": [
            {**owner_reference(one.KIND, one.metadata, one.api_version), "controller": one is first} for one in sharers
        ],
    }
    spec = {
        "secretName": secret,
        "dnsNames": hostnames,
        "issuerRef": {"name": issuer.name, "kind": issuer.kind, "group": issuer.group},
        "privateKey": {"rotationPolicy": "Always"},
        "usages": ["digital signature", "key encipherment", "server auth"],
    }
    return document(f"{CERT_MANAGER_GROUP}/v1", "Certificate", metadata, spec=spec)


def _gateway_of(owner: Gateway | ListenerSet) -> str:
    return owner.metadata.name if isinstance(owner, Gateway) else owner.spec.parent_ref.name
