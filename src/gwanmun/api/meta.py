"""What every Kubernetes object shares: metadata, label selectors, conditions.

Values here are as the API server sends them. Fields that no part of gwanmun reads (most of managedFields, finalizers) are
deliberately absent: they are the bulk of a large list and would only cost memory.
"""

from typing import Literal

import msgspec


class ApiStruct(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """Base of all API types: immutable, snake_case here and camelCase on the wire, unknown fields ignored.

    Unknown fields are ignored because a newer API server may send them; the folder provider reports them before it
    decodes. Enumerations are plain `str` for the same reason: the Gateway API asks an implementation to answer an
    unknown value with a condition, so it has to survive decoding. `gc=False` is safe as manifests have no cycles.
    """


class OwnerReference(ApiStruct, frozen=True):
    """metadata.ownerReferences[]: the object whose deletion also deletes this one."""

    api_version: str
    kind: str
    name: str
    uid: str = ""
    controller: bool = False


class ObjectMeta(ApiStruct, frozen=True):
    """metadata of any object. `namespace` is empty for cluster-scoped kinds only; times are RFC 3339 text."""

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    generation: int = 0
    resource_version: str = ""
    uid: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    owner_references: tuple[OwnerReference, ...] = ()


class ManagedFields(ApiStruct, frozen=True):
    """metadata.managedFields[]: somebody who wrote some of the object, through its `subresource` (status) or without one."""

    manager: str = ""
    subresource: str = ""


class ManagedMeta(ObjectMeta, frozen=True):
    """metadata of the few kinds of which it matters who wrote their status, as the status itself does not say so."""

    managed_fields: tuple[ManagedFields, ...] = ()


class LabelSelectorRequirement(ApiStruct, frozen=True):
    """One expression of a label selector. `operator` is In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether the labels satisfy this one requirement. An unknown operator matches nothing."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case _:
                return False


class LabelSelector(ApiStruct, frozen=True):
    """Kubernetes' label selector: all of `match_labels` and all of `match_expressions`; empty selects everything."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class Condition(ApiStruct, frozen=True):
    """metav1.Condition: one observed aspect of an object. Defaults let a half-written status be read back."""

    type: str
    status: Literal["True", "False", "Unknown"] = "Unknown"
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str | None = None
