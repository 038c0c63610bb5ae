"""The HTTP filters of a listener, in order.

Deliberately absent: filters in front of a single cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gwanmun.ir import InferenceSettings
from gwanmun.xds.filters.cors import cors
from gwanmun.xds.filters.extproc import extproc
from gwanmun.xds.filters.inference import inference
from gwanmun.xds.filters.router import router
from gwanmun.xds.filters.wholebody import whole_body
from gwanmun.xds.types import Fields


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """`inference` None: no rule looks at the model. `shards` 0: one route table. `module_path` None: no module.
    `cors`: some route has a policy. `picked`: some route asks a picker. `max_request_bytes`: the largest body that is held for
    one. `counted`: requests are counted elsewhere."""

    module_path: str | None
    inference: InferenceSettings | None
    shards: int
    cors: bool
    picked: bool
    max_request_bytes: int
    counted: bool


def _inference(options: FilterOptions) -> Fields | None:
    if not options.module_path or (options.inference is None and not options.shards):
        return None
    return inference(options.module_path, options.inference, options.shards)


def _cors(options: FilterOptions) -> Fields | None:
    return cors() if options.cors else None


def _whole_body(options: FilterOptions) -> Fields | None:
    return whole_body(options.max_request_bytes) if options.picked else None


def _extproc(options: FilterOptions) -> Fields | None:
    return extproc() if options.picked else None


HTTP_FILTERS: Final[tuple[Callable[[FilterOptions], Fields | None], ...]] = (
    _inference,  # ahead of everything that asks for the route: it depends on the model
    _cors,  # by the route's policy; a filter that has nothing to do costs a request a microsecond all the same
    _whole_body,  # after the route is known, and before a picker is asked
    _extproc,  # after everything that may still refuse a request: a picker counts those that it has sent somewhere
    lambda options: router(counts=not options.counted),
)
"""First runs first (on answers, last)."""


def http_filters(options: FilterOptions) -> list[Fields]:
    return [built for build in HTTP_FILTERS if (built := build(options)) is not None]
