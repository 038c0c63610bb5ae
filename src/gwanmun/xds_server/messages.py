"""The two messages of delta xDS as the machine sees them, and their wire form.

Responses are joined from bytes that were serialized once, when the resource was built: no message is built or serialized
again for each client. Deliberately absent: what to answer (``delta``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf import json_format

from gwanmun.protos import pb
from gwanmun.xds_server.resources import Resource


@dataclass(frozen=True, slots=True)
class Node:
    """Who a proxy says it is, from its bootstrap."""

    id: str
    cluster: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """A DeltaDiscoveryRequest: changes of a subscription, or the answer (ACK, or NACK with `error`) to a response."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A DeltaDiscoveryResponse."""

    type_url: str
    nonce: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()


def decode_request(data: bytes) -> Request:
    """Raises google.protobuf.message.DecodeError when `data` is no DeltaDiscoveryRequest."""
    message = _request_type().FromString(data)
    return Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=message.error_detail.message if message.HasField("error_detail") else None,
    )


def decode_node(data: bytes) -> Node:
    """The node of a DeltaDiscoveryRequest; clients send it with the first one of a stream only."""
    node = _request_type().FromString(data).node
    return Node(id=node.id, cluster=node.cluster, metadata=json_format.MessageToDict(node.metadata))


def encode_response(response: Response) -> bytes:
    """The bytes of a DeltaDiscoveryResponse. One copy of each body; 2 us for each resource."""
    any_head = _field(1, response.type_url.encode())
    parts: list[bytes] = []
    for resource in response.resources:
        body = resource.body
        body_head = _head(2, len(body))
        version, name = _field(1, resource.version.encode()), _field(3, resource.name.encode())
        packed_length = len(any_head) + len(body_head) + len(body)
        packed_head = _head(2, packed_length)
        length = len(version) + len(packed_head) + packed_length + len(name)
        parts += (_head(2, length), version, packed_head, any_head, body_head, body, name)
    parts += (_field(4, response.type_url.encode()), _field(5, response.nonce.encode()))
    parts += (_field(6, name.encode()) for name in response.removed)
    return b"".join(parts)


def _field(number: int, value: bytes) -> bytes:
    return _head(number, len(value)) + value


def _head(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field (numbers below 16)."""
    if length < 0x80:
        return bytes((number << 3 | 2, length))
    head = bytearray((number << 3 | 2,))
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


@cache
def _request_type() -> type[Any]:
    return pb("envoy.service.discovery.v3.DeltaDiscoveryRequest")
