"""Kubernetes objects as immutable values, one module per kind.

Absent on purpose: what objects mean together (`resources`, `resolve`), and anything that reads a file or a socket.
"""

from gwanmun.api.backendtlspolicy import BackendTLSPolicy
from gwanmun.api.core import ConfigMap, Namespace, Node, Pod, Secret, Service
from gwanmun.api.discovery import EndpointSlice
from gwanmun.api.gateway import Gateway
from gwanmun.api.gatewayclass import GatewayClass
from gwanmun.api.grpcroute import GRPCRoute
from gwanmun.api.gwanmun_v1alpha1 import Backend, GatewayClassConfig
from gwanmun.api.httproute import HTTPRoute
from gwanmun.api.inferencepool import InferencePool
from gwanmun.api.l4routes import TCPRoute, TLSRoute, UDPRoute
from gwanmun.api.listenerset import ListenerSet
from gwanmun.api.made import Made
from gwanmun.api.meta import Condition, LabelSelector, ObjectMeta
from gwanmun.api.referencegrant import ReferenceGrant

Object = (
    GatewayClass
    | Gateway
    | HTTPRoute
    | GRPCRoute
    | TLSRoute
    | TCPRoute
    | UDPRoute
    | ListenerSet
    | ReferenceGrant
    | BackendTLSPolicy
    | Service
    | EndpointSlice
    | Secret
    | ConfigMap
    | Namespace
    | Node
    | Pod
    | GatewayClassConfig
    | Backend
    | InferencePool
    | Made
)
"""Every kind that gwanmun understands, and those that it makes."""

__all__ = [
    "Backend",
    "BackendTLSPolicy",
    "Condition",
    "ConfigMap",
    "EndpointSlice",
    "GRPCRoute",
    "Gateway",
    "GatewayClass",
    "GatewayClassConfig",
    "HTTPRoute",
    "InferencePool",
    "LabelSelector",
    "ListenerSet",
    "Made",
    "Namespace",
    "Node",
    "Object",
    "ObjectMeta",
    "Pod",
    "ReferenceGrant",
    "Secret",
    "Service",
    "TCPRoute",
    "TLSRoute",
    "UDPRoute",
]
