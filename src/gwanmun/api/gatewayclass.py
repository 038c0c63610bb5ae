"""GatewayClass: which controller serves Gateways of this class, and with which parameters."""

from typing import ClassVar

from gwanmun.api.meta import ApiStruct, Condition, ObjectMeta
from gwanmun.api.references import GATEWAY_GROUP, ObjectReference


class GatewayClassSpec(ApiStruct, frozen=True):
    """spec of a GatewayClass. `controller_name` decides who acts on it; parametersRef may name any kind."""

    controller_name: str
    parameters_ref: ObjectReference | None = None
    description: str | None = None


class SupportedFeature(ApiStruct, frozen=True):
    """One entry of status.supportedFeatures."""

    name: str


class GatewayClassStatus(ApiStruct, frozen=True):
    """status of a GatewayClass."""

    conditions: tuple[Condition, ...] = ()
    supported_features: tuple[SupportedFeature, ...] = ()


class GatewayClass(ApiStruct, frozen=True):
    """gateway.networking.k8s.io GatewayClass, cluster-scoped."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "GatewayClass"

    metadata: ObjectMeta
    spec: GatewayClassSpec
    status: GatewayClassStatus = GatewayClassStatus()
    api_version: str = ""
