"""`Present`: what whoever writes an object's status has to know of the object as it is."""

from dataclasses import dataclass
from typing import Any

from gwanmun.api.meta import ManagedMeta, ObjectMeta


@dataclass(frozen=True, slots=True)
class Present:
    """An object as the API server has it now. `status` is of the type that the object's kind has in `api`; `authors` are the
    field managers who wrote some of it, where `api` keeps who did."""

    api_version: str
    uid: str
    resource_version: str
    generation: int
    status: Any
    authors: frozenset[str] = frozenset()


def authors_of_status(metadata: ObjectMeta) -> frozenset[str]:
    """Who wrote some of the status of the object that has this metadata."""
    managed = metadata.managed_fields if isinstance(metadata, ManagedMeta) else ()
    return frozenset(one.manager for one in managed if one.subresource == "status")
