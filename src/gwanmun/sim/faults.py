"""What can go wrong on demand, as data: decoded from JSON or from a short text, chosen by chance that is an argument.

How a fault is carried out lives in `server` and `http`.
"""

from collections.abc import Callable, Sequence

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", forbid_unknown_fields=True):
    """What every fault has: how often, how many times, and where."""

    rate: float = 1.0
    """Share of the requests that are hit."""
    count: int | None = None
    """Most requests that are hit; None: no limit."""
    paths: tuple[str, ...] = ()
    """Path prefixes; empty: every route that does model work, and none of health, metrics and model lists."""


class Error(Fault, frozen=True, kw_only=True, tag="error"):
    """Answer with this status and an error body of the engine's shape."""

    status: int = 500
    message: str = "simulated failure"


class RateLimited(Fault, frozen=True, kw_only=True, tag="rate-limited"):
    """Answer 429 with Retry-After (seconds)."""

    retry_after: int = 1


class Latency(Fault, frozen=True, kw_only=True, tag="latency"):
    """Wait before anything is done: `seconds`, plus up to `jitter` more."""

    seconds: float
    jitter: float = 0.0


class Hang(Fault, frozen=True, kw_only=True, tag="hang"):
    """Accept the request and never answer."""


class Reset(Fault, frozen=True, kw_only=True, tag="reset"):
    """Reset the connection instead of answering."""


class HangMidStream(Fault, frozen=True, kw_only=True, tag="hang-mid-stream"):
    """Stop for good after `after` pieces of the body (half of it when it is not a stream)."""

    after: int = 2


class ResetMidStream(Fault, frozen=True, kw_only=True, tag="reset-mid-stream"):
    """Reset the connection after `after` pieces of the body (half of it when it is not a stream)."""

    after: int = 2


class Drip(Fault, frozen=True, kw_only=True, tag="drip"):
    """Send the body in pieces of `size` bytes, `every` seconds apart."""

    size: int = 16
    every: float = 0.02


class Crash(Fault, frozen=True, kw_only=True, tag="crash"):
    """Reset every connection and stop listening; come back, with an empty cache, after `back_after` seconds if given."""

    back_after: float | None = None


AnyFault = Error | RateLimited | Latency | Hang | Reset | HangMidStream | ResetMidStream | Drip | Crash


class _Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    faults: tuple[AnyFault, ...]


def decode_faults(body: bytes) -> tuple[AnyFault, ...]:
    """`{"faults": [{"kind": "error", "status": 503, "rate": 0.2}, ...]}`. Raises ValueError that says what is wrong where."""
    faults = msgspec.json.decode(body, type=_Order).faults
    for position, fault in enumerate(faults):
        if wrong := _wrong_rate(fault):
            raise ValueError(f"faults[{position}].{wrong}")
    return faults


def encode_faults(faults: Sequence[AnyFault]) -> bytes:
    """The inverse of `decode_faults`."""
    return msgspec.json.encode(_Order(tuple(faults)))


def parse_fault(text: str) -> AnyFault:
    """`error:status=503,rate=0.2` as typed on a command line; several paths are joined by `+`. Raises ValueError."""
    kind, _, options = text.partition(":")
    fields: dict[str, object] = {"kind": kind}
    for option in filter(None, options.split(",")):
        name, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: {option!r} is not name=value")
        fields[name] = value.split("+") if name == "paths" else value
    try:
        fault: AnyFault = msgspec.convert(fields, type=AnyFault, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"{text!r}: {error}") from error
    if wrong := _wrong_rate(fault):
        raise ValueError(f"{text!r}: {wrong}")
    return fault


def _wrong_rate(fault: Fault) -> str | None:
    """By hand, since msgspec's own message does not name the value."""
    return None if 0 <= fault.rate <= 1 else f"rate: {fault.rate:g} is not a share from 0 to 1"


class FaultPlan:
    """The faults in force and how often each was used."""

    def __init__(self, faults: Sequence[AnyFault] = ()) -> None:
        self.faults = tuple(faults)
        self._used = [0] * len(self.faults)

    def chosen(self, path: str, *, is_model_work: bool, draw: Callable[[], float]) -> tuple[AnyFault, ...]:
        """The faults that hit this request; each is drawn by itself, in the order given."""
        hit: list[AnyFault] = []
        for position, fault in enumerate(self.faults):
            concerned = any(path.startswith(prefix) for prefix in fault.paths) if fault.paths else is_model_work
            left = fault.count is None or self._used[position] < fault.count
            if concerned and left and draw() < fault.rate:
                self._used[position] += 1
                hit.append(fault)
        return tuple(hit)
