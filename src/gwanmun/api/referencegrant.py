"""ReferenceGrant: the owner of a namespace lets objects of other namespaces refer to its own."""

from typing import ClassVar

import msgspec

from gwanmun.api.meta import ApiStruct, ObjectMeta
from gwanmun.api.references import GATEWAY_GROUP


class ReferenceGrantFrom(ApiStruct, frozen=True):
    """Who may refer: objects of this kind in this namespace."""

    group: str
    kind: str
    namespace: str


class ReferenceGrantTo(ApiStruct, frozen=True):
    """To what: objects of this kind in the grant's namespace, all of them or the named one."""

    group: str
    kind: str
    name: str | None = None


class ReferenceGrantSpec(ApiStruct, frozen=True):
    """spec of a ReferenceGrant: every `from_` may refer to every `to`."""

    from_: tuple[ReferenceGrantFrom, ...] = msgspec.field(default=(), name="from")
    to: tuple[ReferenceGrantTo, ...] = ()


class ReferenceGrant(ApiStruct, frozen=True):
    """gateway.networking.k8s.io ReferenceGrant."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "ReferenceGrant"

    metadata: ObjectMeta
    spec: ReferenceGrantSpec
    api_version: str = ""
