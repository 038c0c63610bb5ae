"""The xDS server: delta ADS for any number of proxies.

`delta` and `subscription` are the pure machine of one stream, `publisher` knows all streams, `server` is the gRPC loop.
"""

from gwanmun.xds_server.messages import Node
from gwanmun.xds_server.publisher import Peer, ProxyState, Publisher, Scope
from gwanmun.xds_server.resources import Need, Publication, Resource, ResourceSet, resource
from gwanmun.xds_server.server import Cause, Refusal, ServerOptions, XdsServer
from gwanmun.xds_server.subscription import Limits, Rejection

__all__ = [
    "Cause",
    "Limits",
    "Need",
    "Node",
    "Peer",
    "ProxyState",
    "Publication",
    "Publisher",
    "Refusal",
    "Rejection",
    "Resource",
    "ResourceSet",
    "Scope",
    "ServerOptions",
    "XdsServer",
    "resource",
]
