"""InferencePool of the Gateway API Inference Extension: pods that serve one model, and who picks among them."""

from typing import ClassVar

import msgspec

from gwanmun.api.meta import ApiStruct, Condition, ObjectMeta
from gwanmun.api.references import ParentReference

INFERENCE_GROUP = "inference.networking.k8s.io"


class PoolSelector(ApiStruct, frozen=True):
    """Labels of the pool's pods; all must be there."""

    match_labels: dict[str, str] = msgspec.field(default_factory=dict)


class PoolPort(ApiStruct, frozen=True):
    """A port number, of the pods or of the endpoint picker."""

    number: int


class EndpointPickerRef(ApiStruct, frozen=True):
    """The service that picks an endpoint. `failure_mode` is FailOpen or FailClose."""

    name: str
    group: str = ""
    kind: str = "Service"
    port: PoolPort | None = None
    failure_mode: str = "FailClose"


class InferencePoolSpec(ApiStruct, frozen=True):
    """spec of an InferencePool. `app_protocol` is http or kubernetes.io/h2c."""

    selector: PoolSelector
    target_ports: tuple[PoolPort, ...]
    app_protocol: str = "http"
    endpoint_picker_ref: EndpointPickerRef | None = None


class PoolParentStatus(ApiStruct, frozen=True):
    """status.parents[]: what one controller says about the pool under one Gateway."""

    parent_ref: ParentReference
    controller_name: str = ""
    conditions: tuple[Condition, ...] = ()


class InferencePoolStatus(ApiStruct, frozen=True):
    """status of an InferencePool."""

    parents: tuple[PoolParentStatus, ...] = ()


class InferencePool(ApiStruct, frozen=True):
    """inference.networking.k8s.io/v1 InferencePool."""

    GROUP: ClassVar[str] = INFERENCE_GROUP
    KIND: ClassVar[str] = "InferencePool"

    metadata: ObjectMeta
    spec: InferencePoolSpec
    status: InferencePoolStatus = InferencePoolStatus()
    api_version: str = ""
