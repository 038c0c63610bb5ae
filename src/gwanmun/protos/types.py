"""Envoy's messages as Python types, built on demand from the binary's own descriptors.

One pool of our own holds them: protobuf's default pool would clash with any other package that registers the same
files. Only the files that are asked for, and what they import, are loaded.

Deliberately absent: any knowledge of a particular message, and gRPC.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any as Untyped

from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from gwanmun.protos.binary import ProtoFile, envoy_path, read_proto_files

TYPE_URL_PREFIX = "type.googleapis.com/"


class _Descriptors:
    """Answers protobuf's questions "which file is called so?" and "which file declares this name?"."""

    def __init__(self, files: Mapping[str, ProtoFile]) -> None:
        self._files = files
        self._file_of = {symbol: file for file in files.values() for symbol in file.symbols}

    def FindFileByName(self, name: str) -> descriptor_pb2.FileDescriptorProto:  # noqa: N802 (protobuf's interface)
        return descriptor_pb2.FileDescriptorProto.FromString(self._files[name].serialized)

    def FindFileContainingSymbol(self, symbol: str) -> descriptor_pb2.FileDescriptorProto:  # noqa: N802 (as above)
        # A nested type is found through its outermost message, so strip names from the right.
        outer = symbol
        while outer not in self._file_of:
            outer, dot, _ = outer.rpartition(".")
            if not dot:
                raise KeyError(symbol)
        return self.FindFileByName(self._file_of[outer].name)


@cache
def descriptor_pool() -> DescriptorPool:
    """The pool with every message of the pinned Envoy. Raises EnvoyBinaryError where that Envoy is not installed."""
    return DescriptorPool(_Descriptors(read_proto_files(envoy_path())))


@cache
def pb(full_name: str) -> type[Untyped]:
    """The message type of that full name, such as "envoy.config.route.v3.Route". Raises KeyError when Envoy has none.

    Constructors take nested dicts: ``pb("envoy.config.route.v3.Route")(name="a", match={"prefix": "/"})``.
    In them a Duration is a ``timedelta`` (or ``{"seconds": 1}``), an enum its name or number, a wrapper such as
    UInt32Value ``{"value": 3}`` (a plain 3 raises TypeError), a Struct a plain dict or, as the value of a map, `struct`.
    ``{}`` makes a message field present, ``None`` leaves any field absent. A misspelt field raises ValueError. Messages
    of protobuf's default pool (``google.protobuf.duration_pb2``) are refused: take them from here too.
    """
    return message_factory.GetMessageClass(descriptor_pool().FindMessageTypeByName(full_name))


def serialize(message: Message) -> bytes:
    """The bytes of `message`; equal messages give equal bytes (map entries are sorted)."""
    return message.SerializeToString(deterministic=True)


def type_url(full_name: str) -> str:
    """How an Any, or an xDS subscription, names the message type of that full name."""
    return TYPE_URL_PREFIX + full_name


def any_of(message: Message) -> Message:
    """`message` packed into a google.protobuf.Any, as ``typed_config`` fields want it."""
    packed: Message = pb("google.protobuf.Any")(type_url=type_url(message.DESCRIPTOR.full_name), value=serialize(message))
    return packed


def struct(fields: Mapping[str, Untyped]) -> Message:
    """A google.protobuf.Struct; needed where it is the value of a map, such as Metadata's ``filter_metadata``."""
    message = pb("google.protobuf.Struct")()
    message.update(fields)
    built: Message = message
    return built


def unpack(packed: Untyped) -> Untyped:
    """The message inside a google.protobuf.Any. Raises KeyError when Envoy does not know its type."""
    return pb(packed.type_url.rpartition("/")[2]).FromString(packed.value)


def to_dict(message: Message) -> dict[str, Untyped]:
    """`message` as Envoy's YAML shows it: proto field names, Any as "@type" with its fields, durations as "1.5s"."""
    shown: dict[str, Untyped] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=descriptor_pool()
    )
    return shown


def from_dict(full_name: str, document: dict[str, Untyped]) -> Untyped:
    """A message from what Envoy's YAML says. The inverse of `to_dict`; slower than a constructor.

    Raises google.protobuf.json_format.ParseError naming the field that is wrong.
    """
    return json_format.ParseDict(document, pb(full_name)(), descriptor_pool=descriptor_pool())
