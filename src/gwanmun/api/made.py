"""What gwanmun makes on Kubernetes and reads nothing of but its metadata: whose it is, and who has written which fields.

Services and ConfigMaps that routing depends on are in `core`; these are of those that gwanmun made itself.
"""

from typing import Any, ClassVar

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
    """Any of the kinds below."""

    GROUP: ClassVar[str]
    KIND: ClassVar[str]
    api_version: str = ""
    metadata: MadeMeta = MadeMeta()


class ServiceAccount(Made, frozen=True):
    GROUP = ""
    KIND = "ServiceAccount"


class ConfigMap(Made, frozen=True):
    GROUP = ""
    KIND = "ConfigMap"


class Service(Made, frozen=True):
    GROUP = ""
    KIND = "Service"


class Deployment(Made, frozen=True):
    GROUP = "apps"
    KIND = "Deployment"


class NetworkPolicy(Made, frozen=True):
    GROUP = "networking.k8s.io"
    KIND = "NetworkPolicy"


class PodDisruptionBudget(Made, frozen=True):
    GROUP = "policy"
    KIND = "PodDisruptionBudget"


class HorizontalPodAutoscaler(Made, frozen=True):
    GROUP = "autoscaling"
    KIND = "HorizontalPodAutoscaler"


class Certificate(Made, frozen=True):
    GROUP = "cert-manager.io"
    KIND = "Certificate"
