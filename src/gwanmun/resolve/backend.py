"""What a backendRef leads to: Services and Backends."""

from gwanmun import ir
from gwanmun.memo import Query
from gwanmun.names import ClusterKey, ObjectKey
from gwanmun.resolve.status import ObjectConditions


def backend(q: Query, key: ClusterKey) -> ir.Backend | None:
    """How to speak to a backend, or None where it cannot be reached as its owner asks (its share answers 500)."""
    return None


def backend_status(q: Query, key: ObjectKey) -> ObjectConditions | None:
    """The conditions of a Backend object; None where it does not exist."""
    return None
