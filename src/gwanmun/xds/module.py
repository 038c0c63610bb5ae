"""How Envoy is told of the native module."""

from gwanmun.xds.types import Fields


def module(path: str) -> Fields:
    """A DynamicModuleConfig. By file: a search path would have to be in Envoy's environment. Never closed: the module keeps
    state of its own."""
    return {"module": {"local": {"filename": path}}, "do_not_close": True}
