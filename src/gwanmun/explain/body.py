"""What the gateway learns from a request's body, and which bodies it refuses.

The native module does this while the body arrives (`native/src/request.rs`); here are the same rules over a whole body.
Multipart bodies are not taken apart: it is said that the gateway would read them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gwanmun import ir

_UNMEANT = ("", "application/x-www-form-urlencoded", "text/plain")
"""Content types that clients send without meaning it; the first byte decides."""


@dataclass(frozen=True, slots=True)
class BodyReading:
    """`model` is None where none is known, `problem` then says why if the body was to have one. `refused` is the gateway's
    own answer to this body. `facts` are for people."""

    model: str | None = None
    facts: tuple[str, ...] = ()
    problem: str = ""
    refused: str = ""


def read_body(headers: Mapping[str, str], body: bytes, settings: ir.InferenceSettings) -> BodyReading:
    """What is known of the model; a client's own header wins, and then the body is not looked at."""
    header = settings.model_header
    if len(body) > settings.max_request_bytes:
        return BodyReading(refused=f"413: the body has more than {settings.max_request_bytes} bytes")
    if headers.get(header, "").strip():
        return BodyReading(facts=(f"{header}: {headers[header]} (sent by the client)",))
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return BodyReading(facts=("the form's field model is read by the gateway, not here: give the header to explain it",))
    if kind not in _UNMEANT and not (kind == "application/json" or kind.endswith("+json")):
        return BodyReading()
    if kind in _UNMEANT and not body.lstrip().startswith(b"{"):
        return BodyReading()
    encoding = headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        return BodyReading(refused=f"415: a body with the content-encoding {encoding} is not read; the header {header} is")
    return _from_json(body, header)


def _from_json(body: bytes, header: str) -> BodyReading:
    if not body:
        return _without("the request body is empty")
    try:
        pairs = json.loads(body, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        return _without(f"the request body is not valid JSON ({error})")
    models = [value for name, value in pairs if name == "model"] if isinstance(pairs, _Pairs) else []
    match models:
        case []:
            return _without('the request body has no top-level "model"')
        case [str(model)] if model and model == model.strip():
            return BodyReading(model, (f"{header}: {model} (read from the body)",))
        case [_]:
            return _without('"model" in the request body is not a usable name')
        case _:
            return _without('"model" appears twice in the request body')


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with the keys that it repeats."""


def _without(problem: str) -> BodyReading:
    return BodyReading(facts=(f"{problem}, so no model is known",), problem=problem)
