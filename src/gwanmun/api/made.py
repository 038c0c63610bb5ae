"""What gwanmun makes on Kubernetes and reads nothing of but its metadata: whose it is, and who has written which fields.

Services and ConfigMaps that routing depends on are in `core`; these are of those that gwanmun made itself.
"""

import types
from typing import Any, ClassVar, cast

import msgspec

from gwanmun.api.meta import ApiStruct, ManagedFields, ObjectMeta


class WrittenFields(ManagedFields, frozen=True):
    """metadata.managedFields[] with the fields themselves: those that a manager has written last."""

    operation: str = ""
    fields_v1: dict[str, Any] = msgspec.field(default_factory=dict)


class MadeMeta(ObjectMeta, frozen=True):
    """metadata of such an object."""

    managed_fields: tuple[WrittenFields, ...] = ()


class Made(ApiStruct, frozen=True):
    """An object of any kind that is made."""

    GROUP: ClassVar[str]
    KIND: ClassVar[str]
    api_version: str = ""
    metadata: MadeMeta = MadeMeta()


def made(group: str, kind: str) -> type[Made]:
    """The type of what is made of one kind."""
    return cast(type[Made], types.new_class(kind, (Made,), {"frozen": True}, lambda body: body.update(GROUP=group, KIND=kind)))
