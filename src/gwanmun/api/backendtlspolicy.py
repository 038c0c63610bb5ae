"""BackendTLSPolicy: TLS from the gateway to a Service, and how the server's certificate is checked."""

from typing import ClassVar

import msgspec

from gwanmun.api.meta import ApiStruct, ObjectMeta
from gwanmun.api.references import GATEWAY_GROUP, LocalObjectReference, PolicyStatus, PolicyTargetReference


class SubjectAltName(ApiStruct, frozen=True):
    """An accepted name of the server. `type` is Hostname or URI and says which of the two values counts."""

    type: str
    hostname: str | None = None
    uri: str | None = None


class BackendTLSPolicyValidation(ApiStruct, frozen=True):
    """`hostname` is sent as SNI and, without subjectAltNames, must be in the certificate."""

    hostname: str
    ca_certificate_refs: tuple[LocalObjectReference, ...] = ()
    well_known_ca_certificates: str | None = msgspec.field(default=None, name="wellKnownCACertificates")
    subject_alt_names: tuple[SubjectAltName, ...] = ()


class BackendTLSPolicySpec(ApiStruct, frozen=True):
    """spec of a BackendTLSPolicy; a target's sectionName is a port name of the Service."""

    target_refs: tuple[PolicyTargetReference, ...]
    validation: BackendTLSPolicyValidation
    options: dict[str, str] = msgspec.field(default_factory=dict)


class BackendTLSPolicy(ApiStruct, frozen=True):
    """gateway.networking.k8s.io BackendTLSPolicy."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "BackendTLSPolicy"

    metadata: ObjectMeta
    spec: BackendTLSPolicySpec
    status: PolicyStatus = PolicyStatus()
    api_version: str = ""
