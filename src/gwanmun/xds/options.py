"""What the translator has to know of the place where Envoy runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gwanmun.names import NamespacedName

PortKey = tuple[NamespacedName, int, Literal["tcp", "udp"]]
"""A port of a Gateway."""


class Binding(NamedTuple):
    """Where a Gateway's port is really bound, and the port that clients see (in redirects, say)."""

    address: str
    port: int
    advertised: int


@dataclass(frozen=True, slots=True)
class Options:
    """`bindings`: a port that is not in it is not served. `module_path` None: the native module is missing, and what needs
    it is left out with a problem.

    `zone` and `node` are the proxy's own, for traffic that prefers to stay near. A route table with more than
    `shard_threshold` rules is cut into up to `shards` scoped ones (only with the module), as Envoy builds a table anew with
    every change of it. `access_log` is a file that gets one line of JSON for each request. `system_trust` is the file with the
    certificate authorities that this machine trusts.
    """

    bindings: Mapping[PortKey, tuple[Binding, ...]] = field(default_factory=dict)
    module_path: str | None = None
    zone: str = ""
    node: str = ""
    shard_threshold: int = 500
    shards: int = 256
    access_log: str | None = None
    system_trust: str = "/etc/ssl/certs/ca-certificates.crt"
