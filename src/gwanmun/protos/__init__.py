"""Envoy's protobuf messages, exactly as the pinned Envoy binary knows them.

    from gwanmun.protos import any_of, pb

    route = pb("envoy.config.route.v3.Route")(name="all", match={"prefix": "/"}, route={"cluster": "backend"})

The lowest layer: imports nothing of ours. Deliberately absent: gRPC and every opinion about what to configure.
"""

from google.protobuf.message import Message

from gwanmun.protos.binary import ENVOY_VERSION, EnvoyBinaryError, envoy_path
from gwanmun.protos.types import any_of, descriptor_pool, from_dict, pb, serialize, struct, to_dict, type_url, unpack

__all__ = [
    "ENVOY_VERSION",
    "EnvoyBinaryError",
    "Message",
    "any_of",
    "descriptor_pool",
    "envoy_path",
    "from_dict",
    "pb",
    "serialize",
    "struct",
    "to_dict",
    "type_url",
    "unpack",
]
