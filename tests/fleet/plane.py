"""A control plane over TLS for one proxy, with what a pod finds mounted: a token and the authorities."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import trustme

from gwanmun.protos import any_of, pb, serialize
from gwanmun.xds_server import Cause, Publisher, ResourceSet, XdsServer, resource
from gwanmun.xds_server.publisher import Peer
from gwanmun.xds_server.resources import CLUSTER, LISTENER
from gwanmun.xds_server.server import Metadata, Refusal

SERVER_NAME = "gwanmun.test.svc"
SCOPE = "test/gw"


class Mounted:
    """A volume as kubelets make it: files are links through `..data`, which moves when their contents change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._versions = 0

    def write(self, **files: str) -> None:
        self._versions += 1
        version = self.folder / f"..{self._versions}"
        version.mkdir(parents=True)
        for name, content in files.items():
            (version / name).write_text(content)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data") / name)
        (self.folder / "..new").symlink_to(version.name)
        os.replace(self.folder / "..new", self.folder / "..data")

    def take_away(self) -> None:
        """As while a volume is made anew."""
        (self.folder / "..data").unlink()


@dataclass
class Plane:
    """`seen` are the authorization headers and nodes of streams so far; only those in `accepted` get anything."""

    publisher: Publisher
    port: int = 0
    accepted: set[str] = field(default_factory=lambda: {"Bearer one"})
    seen: list[str] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def identify(self, metadata: Metadata, peer: Peer) -> Peer | Refusal:
        shown = metadata.get("authorization", "")
        self.seen.append(shown)
        self.changed.set()
        return peer if shown in self.accepted else Refusal("who are you?", Cause.BAD_TOKEN)

    def scope_of(self, node: Any, _: Peer) -> str:
        self.nodes.append(node)
        return SCOPE

    async def token_seen(self, token: str) -> None:
        while token not in self.seen:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 15)


@asynccontextmanager
async def control_plane(authority: trustme.CA, *, name: str = SERVER_NAME) -> AsyncIterator[Plane]:
    """One that answers on 127.0.0.1 with a certificate for `name`; nothing is published yet."""
    plane = Plane(Publisher())
    certificate = authority.issue_cert(name)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())])
    server = XdsServer(plane.publisher, plane.scope_of, identify=plane.identify)
    plane.port = await server.start("127.0.0.1:0", credentials)
    try:
        yield plane
    finally:
        await server.stop(0)


def one_listener(port: int, body: str, *, backend: int | None = None) -> ResourceSet:
    """A listener that answers with `body`, and passes requests for /slow on to a backend."""
    routes: list[dict[str, Any]] = []
    clusters: dict[str, Any] = {}
    if backend is not None:
        routes.append({"match": {"prefix": "/slow"}, "route": {"cluster": "backend", "timeout": {"seconds": 60}}})
        address = {"socket_address": {"address": "127.0.0.1", "port_value": backend}}
        assignment = {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
        cluster = pb("envoy.config.cluster.v3.Cluster")(name="backend", type="STATIC", load_assignment=assignment)
        clusters["backend"] = resource("backend", serialize(cluster))
    routes.append({"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}})
    manager = pb("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")(
        stat_prefix="front",
        route_config={"name": "routes", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        http_filters=[{"name": "router", "typed_config": any_of(pb("envoy.extensions.filters.http.router.v3.Router")())}],
    )
    listener = pb("envoy.config.listener.v3.Listener")(
        name="front",
        address={"socket_address": {"address": "127.0.0.1", "port_value": port}},
        filter_chains=[{"filters": [{"name": "http", "typed_config": any_of(manager)}]}],
    )
    return ResourceSet({LISTENER: {"front": resource("front", serialize(listener))}, CLUSTER: clusters})
