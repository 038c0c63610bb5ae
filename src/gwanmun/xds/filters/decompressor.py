"""Unpacks compressed request bodies, so that the model can be read from them.

Only gzip: it is what Envoy can bound (see `_MAX_RATIO`). Other encodings reach the module, which answers 415. Answers are
left as they are.
"""

from typing import Final

from gwanmun.xds.types import Fields, extension

_MAX_RATIO: Final = 100
"""How many times its size a piece of body may grow to. Prompts shrink to a fifth or a tenth; only bombs to a thousandth."""


def decompressor() -> Fields:
    return extension(
        "envoy.filters.http.decompressor",
        "envoy.extensions.filters.http.decompressor.v3.Decompressor",
        decompressor_library=extension(
            "gzip",
            "envoy.extensions.compression.gzip.decompressor.v3.Gzip",
            max_inflate_ratio={"value": _MAX_RATIO},
        ),
        request_direction_config={"common_config": {}},
        response_direction_config={
            "common_config": {"enabled": {"default_value": {"value": False}, "runtime_key": "gwanmun.decompress_responses"}}
        },
    )
