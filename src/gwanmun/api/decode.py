"""Plain values and the API server's JSON to the types of this package.

Manifests come through `decode_object`, after validation. JSON of an API server is already valid and goes straight to
types: 5,000 routes take 40 ms.
"""

import base64
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import msgspec

from gwanmun.api import Object
from gwanmun.api.kinds import Kind
from gwanmun.api.meta import ApiStruct

T = TypeVar("T")


class ListMeta(ApiStruct, frozen=True):
    """metadata of a list; `continue_` asks for the next page and is empty on the last one."""

    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class ObjectList(ApiStruct, Generic[T], frozen=True):
    """One page of a list."""

    metadata: ListMeta
    items: tuple[T, ...] | None = ()


def decode_object(value: dict[str, Any], kind: Kind) -> Object:
    """The typed object of a validated value. Raises msgspec.ValidationError where it does not fit the type."""
    match kind.kind:
        case "Secret":
            value = {**value, "data": _secret_data(value)}
        case "ConfigMap" if "binaryData" in value:
            value = {**value, "binaryData": {key: _unwrapped(text) for key, text in value["binaryData"].items()}}
    return msgspec.convert(value, kind.type)


def _secret_data(value: dict[str, Any]) -> dict[str, str]:
    """Both maps in one, in base64: stringData is write-only and wins, as on an API server."""
    plain = {key: base64.b64encode(text.encode()).decode() for key, text in value.get("stringData", {}).items()}
    return {key: _unwrapped(text) for key, text in value.get("data", {}).items()} | plain


def _unwrapped(text: str) -> str:
    return text.replace("\n", "").replace("\r", "")


def decode_json(data: bytes, kind: Kind) -> Object:
    """One object as the API server sends it. Raises msgspec.DecodeError."""
    return cast("Object", _decoder(kind.type).decode(data))


def decode_json_list(data: bytes, kind: Kind) -> ObjectList[Object]:
    """One page of a list as the API server sends it. Raises msgspec.DecodeError."""
    page_type = cast("Any", ObjectList)[kind.type]  # a type that is only known at run time
    return cast("ObjectList[Object]", _decoder(page_type).decode(data))


@lru_cache(maxsize=128)
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)
