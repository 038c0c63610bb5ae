"""URL paths of the API server. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from gwanmun.api.kinds import KINDS, MADE_KINDS, split_api_version

_OWN: Final[Mapping[tuple[str, str], str]] = {
    ("", "Event"): "events",
    ("", "Pod"): "pods",
    ("coordination.k8s.io", "Lease"): "leases",
    ("events.k8s.io", "Event"): "events",
}
"""Kinds that gwanmun writes but never reads as input, with their names in URLs."""

PLURALS: Final[Mapping[tuple[str, str], str]] = {
    **{(kind.group, kind.kind): kind.plural for kind in (*KINDS.values(), *MADE_KINDS)},
    **_OWN,
}
"""By group and kind, what the kind is called in URLs."""


def collection_path(group: str, version: str, plural: str, namespace: str = "") -> str:
    """Where the objects of a kind are; without a namespace those of the whole cluster."""
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def object_path(group: str, version: str, plural: str, *, namespace: str, name: str) -> str:
    """Where one object is; `namespace` is empty for cluster-scoped ones."""
    return f"{collection_path(group, version, plural, namespace)}/{name}"


def manifest_path(manifest: Mapping[str, Any]) -> str:
    """Where a manifest belongs. KeyError for a kind that gwanmun does not make."""
    group, version = split_api_version(manifest["apiVersion"])
    metadata = manifest["metadata"]
    plural = PLURALS[group, manifest["kind"]]
    return object_path(group, version, plural, namespace=metadata.get("namespace", ""), name=metadata["name"])
