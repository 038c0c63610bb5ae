"""What the gateway learns from a request's body, and which bodies it refuses.

The native module does this while the body arrives (`native/src/request.rs`); here are the same rules over a whole body.
Multipart bodies are not taken apart: it is said that the gateway would read them.
"""

from dataclasses import dataclass

from gwanmun import ir
from gwanmun.explain.headers import Headers, value_of, values_of, with_value
from gwanmun.explain.scan import model_in

_UNMEANT = ("", "application/x-www-form-urlencoded", "text/plain")
"""Content types that clients send without meaning it; the first byte decides."""

_STREAMS = ("application/grpc", "application/connect+")
"""Content types of streams, whose messages may be JSON."""

_SPACE = " \t\n\f\r"


@dataclass(frozen=True, slots=True)
class BodyReading:
    """`model` is None where none is known, `problem` then says why if the body was to have one. `refused` is the gateway's
    own answer to this body. `facts` are for people."""

    model: str | None = None
    facts: tuple[str, ...] = ()
    problem: str = ""
    refused: str = ""


def with_one_model(headers: Headers, header: str) -> Headers:
    """The headers with the first model alone, where a client names several."""
    values = values_of(headers, header)
    return with_value(headers, header, values[0].strip(_SPACE)) if len(values) > 1 else headers


def too_large(most: int) -> str:
    """What is answered to a body that would have to be held."""
    return f"413: the body has more than {most} bytes"


def read_body(method: str, headers: Headers, body: bytes, settings: ir.InferenceSettings) -> BodyReading:
    """What is known of the model; a client's own header wins, and then the body is not looked at."""
    header = settings.model_header
    sent = value_of(headers, header).strip(_SPACE)
    if sent:
        return BodyReading(facts=(f"{header}: {sent} (sent by the client)",))
    if method != "POST":
        return BodyReading(
            facts=(f"the body is not read: the model is taken from those of POST, not {method}",) if body else ()
        )
    refused = BodyReading(refused=too_large(settings.max_request_bytes))
    is_too_large = len(body) > settings.max_request_bytes
    kind = value_of(headers, "content-type").partition(";")[0].strip(_SPACE).lower()
    form = kind == "multipart/form-data"
    if kind in _UNMEANT:
        text = body.lstrip(_SPACE.encode())
        if text and not text.startswith(b"{"):
            return BodyReading()
        if not text:
            return refused if is_too_large else BodyReading()
    elif not form and not _is_json(kind):
        return BodyReading()
    encoding = value_of(headers, "content-encoding").strip(_SPACE)
    if body and encoding.lower() not in ("", "identity"):
        return BodyReading(refused=f"415: a body with the content-encoding {encoding} is not read; the header {header} is")
    if is_too_large:
        return refused
    if form:
        return BodyReading(facts=("the form's field model is read by the gateway, not here: give the header to explain it",))
    return _from_json(body, header)


def _is_json(kind: str) -> bool:
    return (kind == "application/json" or kind.endswith("+json")) and not kind.startswith(_STREAMS)


def _from_json(body: bytes, header: str) -> BodyReading:
    model, problem = model_in(body)
    if model is None:
        return BodyReading(facts=(f"{problem}, so no model is known",), problem=problem)
    return BodyReading(model, (f"{header}: {model} (read from the body)",))
