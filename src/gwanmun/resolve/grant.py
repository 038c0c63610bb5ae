"""ReferenceGrants: whether an object may refer to one of another namespace.

Absent on purpose: what happens where it may not; that is the referring object's business.
"""

from gwanmun.api import ReferenceGrant
from gwanmun.memo import Query
from gwanmun.names import ObjectKey
from gwanmun.resolve.world import find, read


def permitted(q: Query, from_group: str, from_kind: str, from_namespace: str, to: ObjectKey) -> bool:
    """Whether objects of that kind in `from_namespace` may refer to `to`; within one namespace they always may."""
    if from_namespace == to.namespace:
        return True
    return any(
        _grants(grant, from_group=from_group, from_kind=from_kind, from_namespace=from_namespace, to=to)
        for key in find(q, "grants", to.namespace)
        if (grant := read(q, key, ReferenceGrant)) is not None
    )


def _grants(grant: ReferenceGrant, *, from_group: str, from_kind: str, from_namespace: str, to: ObjectKey) -> bool:
    return any(
        source.group == from_group and source.kind == from_kind and source.namespace == from_namespace
        for source in grant.spec.from_
    ) and any(
        target.group == to.group and target.kind == to.kind and target.name in (None, "", to.name) for target in grant.spec.to
    )


def missing_grant(from_group: str, from_kind: str, from_namespace: str, to: ObjectKey) -> str:
    """The ReferenceGrant that would permit it, as one line of YAML for a message."""
    return (
        f"add to namespace {to.namespace}: {{kind: ReferenceGrant, spec: {{"
        f'from: [{{group: "{from_group}", kind: {from_kind}, namespace: {from_namespace}}}], '
        f'to: [{{group: "{to.group}", kind: {to.kind}}}]}}}}'
    )
