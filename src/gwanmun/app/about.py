"""What is installed."""

from collections.abc import Iterator

from gwanmun.infra.envoy import MODULE, find_envoy
from gwanmun.protos import EnvoyBinaryError


def about(version: str) -> Iterator[tuple[str, str]]:
    """Names and versions, also of what is missing."""
    yield "gwanmun", version
    try:
        yield "envoy", find_envoy().version
    except EnvoyBinaryError as error:
        yield "envoy", f"not usable: {error}"
    yield "native module", "there" if MODULE.exists() else "missing: it is built where there is cargo (make native)"
