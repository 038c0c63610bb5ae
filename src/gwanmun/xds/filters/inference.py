"""The native module's filter: the model's name from the body into a header, and the shard of the host's routes."""

import json
from typing import Final

from gwanmun.ir import InferenceSettings
from gwanmun.protos import any_of, pb
from gwanmun.xds.types import Fields, extension

_FILTER: Final = "inference"


def inference(module_path: str, settings: InferenceSettings | None, shards: int) -> Fields:
    """`settings` None: bodies are not looked at. `shards` 0: the routes are in one table."""
    config: dict[str, str | int] = {"model_header": "" if settings is None else settings.model_header, "shards": shards}
    if settings is not None:
        config["max_request_bytes"] = settings.max_request_bytes
    return extension(
        "gwanmun.inference",
        "envoy.extensions.filters.http.dynamic_modules.v3.DynamicModuleFilter",
        # By file: a search path would have to be in Envoy's environment. Never closed: the module keeps state of its own.
        dynamic_module_config={"module": {"local": {"filename": module_path}}, "do_not_close": True},
        filter_name=_FILTER,
        filter_config=any_of(pb("google.protobuf.StringValue")(value=json.dumps(config, sort_keys=True))),
    )
