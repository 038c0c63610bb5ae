"""What is kept of an object: only what resolve reads. Pure.

A status that we write comes back as a change of the object. Taken out here it reaches the status writer alone, and nothing
is resolved again because of it.
"""

from typing import Any, Final

import msgspec

from gwanmun.api import ConfigMap, Object, ObjectMeta, Pod, Secret, Service
from gwanmun.api.gwanmun_v1alpha1 import GWANMUN_GROUP
from gwanmun.api.inferencepool import INFERENCE_GROUP
from gwanmun.api.meta import ManagedMeta
from gwanmun.api.references import GATEWAY_GROUP
from gwanmun.kube import Present, authors_of_status

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

REPORTED_GROUPS: Final = frozenset({GATEWAY_GROUP, GWANMUN_GROUP, INFERENCE_GROUP})
"""Groups of the objects whose status we write."""

FIELD_SELECTORS: Final = {
    "Pod": "status.phase!=Succeeded,status.phase!=Failed",
    "Secret": "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=kubernetes.io/dockerconfigjson",
}
"""What is not even asked for. Releases of helm alone may be larger than everything else together."""

_LARGEST_VALUE: Final = 512 * 1024
"""Of a ConfigMap. Certificate authorities fit easily; dashboards and the like are of no use here."""


def trimmed(obj: Object) -> Object:
    """The object without what only costs memory, and without what changes when nobody has changed it."""
    metadata = obj.metadata
    annotations = metadata.annotations
    if LAST_APPLIED in annotations:
        annotations = {key: value for key, value in annotations.items() if key != LAST_APPLIED}
    managed: dict[str, Any] = {"managed_fields": ()} if isinstance(metadata, ManagedMeta) else {}
    changes: dict[str, Any] = {"metadata": _replaced(metadata, resource_version="", annotations=annotations, **managed)}
    match obj:
        case Secret() | Service():
            pass  # a Service's status is its load balancer's address
        case ConfigMap():
            if any(len(value) > _LARGEST_VALUE for value in obj.data.values()) or obj.binary_data:
                small = {key: value for key, value in obj.data.items() if len(value) <= _LARGEST_VALUE}
                changes |= {"data": small, "binary_data": {}}
        case Pod(status=status):
            ready = tuple(_replaced(one, **_UNTIMED) for one in status.conditions if one.type == "Ready")
            changes |= {"status": _replaced(status, conditions=ready)}
            changes["metadata"] = _replaced(changes["metadata"], annotations={}, owner_references=())
        case _ if obj.GROUP in REPORTED_GROUPS and hasattr(obj, "status"):
            changes["status"] = _EMPTY.setdefault(type(obj.status), type(obj.status)())
    kept: Object = _replaced(obj, **changes)
    return kept


def present(obj: Object) -> Present | None:
    """None for an object whose status is not ours to write."""
    if obj.GROUP not in REPORTED_GROUPS or not hasattr(obj, "status"):
        return None
    metadata: ObjectMeta = obj.metadata
    return Present(
        obj.api_version, metadata.uid, metadata.resource_version, metadata.generation, obj.status, authors_of_status(metadata)
    )


_UNTIMED: Final = {"reason": "", "message": "", "observed_generation": 0, "last_transition_time": None}
_EMPTY: dict[type[Any], Any] = {}


def _replaced(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)
