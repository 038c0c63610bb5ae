"""The native module's filter: the model's name from the body into a header, and the shard of the host's routes."""

import json
from functools import cache
from typing import Any, Final

from gwanmun.ir import InferenceSettings
from gwanmun.protos import any_of, pb
from gwanmun.xds.module import module
from gwanmun.xds.types import Fields, extension

INFERENCE: Final = "gwanmun.inference"
_FILTER: Final = "inference"


def inference(module_path: str, settings: InferenceSettings | None, shards: int) -> Fields:
    """`settings` None: bodies are not looked at. `shards` 0: the routes are in one table."""
    config: dict[str, str | int] = {"model_header": "" if settings is None else settings.model_header, "shards": shards}
    if settings is not None:
        config["max_request_bytes"] = settings.max_request_bytes
    return extension(
        INFERENCE,
        "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        dynamic_module_config=module(module_path),
        filter_name=_FILTER,
        filter_config=any_of(pb("google.protobuf.StringValue")(value=json.dumps(config, sort_keys=True))),
    )


@cache
def unneeded() -> Any:
    """The settings of a route that spare its requests the filter, packed for `typed_per_filter_config`."""
    return any_of(pb("envoy.config.route.v3.FilterConfig")(disabled=True))
