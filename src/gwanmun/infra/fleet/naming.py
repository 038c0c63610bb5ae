"""Names and labels of what is made for a Gateway. Pure."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from gwanmun.api import Gateway, ObjectMeta
from gwanmun.api.references import GATEWAY_GROUP
from gwanmun.infra.fleet.contract import FLEET_LABEL, GATEWAY_LABEL, MANAGED_BY

_LONGEST: Final = 63
_DIGEST: Final = 8


def fleet_name(gateway: Gateway) -> str:
    """What everything made for a Gateway is called: its own name and its class's (GEP-1762), as a DNS label."""
    return dns_label(f"{gateway.metadata.name}-{gateway.spec.gateway_class_name}")


def dns_label(text: str) -> str:
    """The text itself where it is a DNS label that a Service may have; else one that is made from it and only from it."""
    label = re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")
    if not label[:1].isalpha():
        label = f"gw-{label}"
    return label if label == text and len(text) <= _LONGEST else _with_digest(label, text)


def label_value(text: str) -> str:
    """The text itself where it can be a label's value; else one that is made from it and only from it."""
    return text if len(text) <= _LONGEST else _with_digest(text, text)


def _with_digest(stem: str, text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
    return f"{stem[: _LONGEST - _DIGEST - 1].rstrip('-.')}-{digest}"


def selector(gateway: Gateway) -> dict[str, str]:
    """What finds the pods of a Gateway, and nothing else in its namespace."""
    return {"app.kubernetes.io/name": "gwanmun-proxy", GATEWAY_LABEL: label_value(gateway.metadata.name)}


def labels(gateway: Gateway, instance: str) -> dict[str, str]:
    """Labels of every object: what the Gateway asks for, and ours, which win."""
    infrastructure = gateway.spec.infrastructure
    return {
        **(infrastructure.labels if infrastructure else {}),
        **selector(gateway),
        "app.kubernetes.io/component": "proxy",
        "app.kubernetes.io/instance": fleet_name(gateway),
        **ours(instance),
    }


def ours(instance: str) -> dict[str, str]:
    """The labels by which an installation finds what it made."""
    return {**MANAGED_BY, FLEET_LABEL: label_value(instance)}


def annotations(gateway: Gateway) -> dict[str, str]:
    """Annotations of every object: what the Gateway asks for."""
    return dict(gateway.spec.infrastructure.annotations) if gateway.spec.infrastructure else {}


def owner_reference(kind: str, metadata: ObjectMeta, api_version: str) -> dict[str, Any]:
    """Kubernetes deletes what carries it when the owner has gone."""
    version = api_version or f"{GATEWAY_GROUP}/v1"
    return {"apiVersion": version, "kind": kind, "name": metadata.name, "uid": metadata.uid, "controller": True}


def document(api_version: str, kind: str, metadata: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """An object as the API server takes it, empty parts of its metadata left out."""
    kept = {key: value for key, value in metadata.items() if value}
    return {"apiVersion": api_version, "kind": kind, "metadata": kept, **fields}
