"""cert-manager's Certificates for listeners that terminate TLS. Pure.

Deliberately absent: reading the Secrets that come of them, which are like any others.
"""

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


def certificates_for(owner: Gateway | ListenerSet, issuer: Issuer, *, instance: str = "gwanmun") -> tuple[dict[str, Any], ...]:
    """A Certificate for each Secret that a listener with a hostname names, with the hostnames of all that name it.

    None for Secrets of other namespaces, which are their owners' affair, nor where the owner carries cert-manager's own
    annotations: cert-manager then makes its Certificates itself.
    """
    if any(name in owner.metadata.annotations for name in _SHIM):
        return ()
    hostnames: dict[str, set[str]] = {}
    for listener in owner.spec.listeners:
        for secret in _secrets(owner, listener):
            hostnames.setdefault(secret, set()).add(listener.hostname or "")
    return tuple(_certificate(owner, issuer, instance, secret, sorted(names)) for secret, names in sorted(hostnames.items()))


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
    owner: Gateway | ListenerSet, issuer: Issuer, instance: str, secret: str, hostnames: list[str]
) -> dict[str, Any]:
    metadata = {
        "name": secret,
        "namespace": owner.metadata.namespace,
        "labels": {GATEWAY_LABEL: label_value(_gateway_of(owner)), **ours(instance)},
        "ownerReferences": [owner_reference(owner.KIND, owner.metadata, owner.api_version)],
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
