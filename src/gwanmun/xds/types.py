"""The kinds of xDS resources, and the few shapes that nearly every message needs.

Deliberately absent: anything about a particular gateway.
"""

from collections.abc import Hashable
from typing import Any, Final, NamedTuple

from gwanmun.protos import any_of, pb, type_url

CLUSTER: Final = type_url("envoy.config.cluster.v3.Cluster")
ENDPOINTS: Final = type_url("envoy.config.endpoint.v3.ClusterLoadAssignment")
LISTENER: Final = type_url("envoy.config.listener.v3.Listener")
ROUTES: Final = type_url("envoy.config.route.v3.RouteConfiguration")
SCOPED_ROUTES: Final = type_url("envoy.config.route.v3.ScopedRouteConfiguration")
SECRET: Final = type_url("envoy.extensions.transport_sockets.tls.v3.Secret")

MESSAGES: Final = {
    CLUSTER: "envoy.config.cluster.v3.Cluster",
    ENDPOINTS: "envoy.config.endpoint.v3.ClusterLoadAssignment",
    LISTENER: "envoy.config.listener.v3.Listener",
    ROUTES: "envoy.config.route.v3.RouteConfiguration",
    SCOPED_ROUTES: "envoy.config.route.v3.ScopedRouteConfiguration",
    SECRET: "envoy.extensions.transport_sockets.tls.v3.Secret",
}
"""The message type of each kind, in the order in which Envoy needs them when it starts."""

ADS: Final = {"ads": {}, "resource_api_version": "V3"}
"""Where a resource named by another one comes from: the stream that brought that one."""

KEEPALIVE: Final = {"keepalive_time": {"value": 60}, "keepalive_interval": {"value": 10}, "keepalive_probes": {"value": 3}}
"""When a connection on which nothing comes is asked whether the other end is still there, in seconds."""

Fields = dict[str, Any]
"""Arguments of a message's constructor."""


class Need(NamedTuple):
    """A resource that another one names and that has to be there before the other one can be used."""

    type_url: str
    name: str


class Problem(NamedTuple):
    """What could not be expressed, and the key of the listener, rule or backend it is about."""

    subject: Hashable
    message: str


def extension(name: str, full_name: str, **fields: Any) -> Fields:
    """The name and configuration of one of Envoy's extensions, the form that all its extension points take."""
    return {"name": name, "typed_config": any_of(pb(full_name)(**fields))}


def number(value: int) -> Fields:
    """A number that may be absent (UInt32Value)."""
    return {"value": value}


def yes() -> Fields:
    """True, where it may be absent (BoolValue)."""
    return {"value": True}


def no() -> Fields:
    """False, where absence would mean something else (BoolValue)."""
    return {"value": False}
