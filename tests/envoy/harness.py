"""A real Envoy on our xDS server, backends that say who they are, and short words for the messages that tests hand-make.

Everything binds to loopback on ports that the system picks, and lives in the test's own directory.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from gwanmun.protos import Message, any_of, envoy_path, pb, serialize
from gwanmun.xds_server import Need, Resource, resource
from gwanmun.xds_server.resources import ENDPOINTS, ROUTES, SECRET

LOOPBACK = "127.0.0.1"


# Envoy


def bootstrap(ads_socket: Path, node_id: str = "test") -> dict[str, Any]:
    """The least Envoy needs to get everything else over delta ADS from a unix socket."""
    source = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "node": {"id": node_id, "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": LOOPBACK, "port_value": 0}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": "xds",
                            "retry_policy": {"retry_back_off": {"base_interval": "0.05s", "max_interval": "0.2s"}},
                        }
                    }
                ],
            },
            "cds_config": source,
            "lds_config": source,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(ads_socket)}}}}]}],
                    },
                }
            ]
        },
    }


@dataclass(frozen=True)
class Envoy:
    """A running Envoy; `admin` is an HTTP client of its admin interface."""

    admin: httpx.AsyncClient
    log: Path

    async def stat(self, name: str) -> int:
        """One counter or gauge."""
        found = (await self.admin.get("/stats", params={"filter": f"^{name}$", "format": "json"})).json()["stats"]
        return int(found[0]["value"])

    async def active(self, kind: str, key: str) -> set[str]:
        """Names under `key` in one section of /config_dump, such as ("ClustersConfigDump", "dynamic_active_clusters")."""
        dump = (await self.admin.get("/config_dump")).json()
        section = next(part for part in dump["configs"] if part["@type"].endswith(f".{kind}"))
        return {entry.get("name") or entry["cluster"]["name"] for entry in section.get(key, [])}

    async def clusters(self) -> set[str]:
        """The clusters that came over CDS and are in use (not those still warming)."""
        return await self.active("ClustersConfigDump", "dynamic_active_clusters")


@asynccontextmanager
async def running_envoy(directory: Path, document: dict[str, Any]) -> AsyncIterator[Envoy]:
    """Start Envoy with this bootstrap, wait for its admin interface, stop it at the end."""
    config, admin_file, log = directory / "bootstrap.yaml", directory / "admin", directory / "envoy.log"
    config.write_text(yaml.safe_dump(document))
    admin_file.unlink(missing_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(envoy_path(), "-c", config, "--admin-address-path", admin_file, "--log-path", log),
        *("--concurrency", "1", "--disable-hot-restart", "-l", "info"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(20):
            while not admin_file.is_file() or not admin_file.read_text():
                if process.returncode is not None:
                    raise AssertionError(f"Envoy ended with {process.returncode}:\n{log.read_text()[-3000:]}")
                await asyncio.sleep(0.02)
        async with httpx.AsyncClient(base_url=f"http://{admin_file.read_text()}", timeout=10) as admin:
            yield Envoy(admin, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# Backends


@asynccontextmanager
async def backend(name: str) -> AsyncIterator[int]:
    """An HTTP server that answers every request with `name`; yields its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


# Messages

_ADS = {"ads": {}, "resource_api_version": "V3"}


def made(message: Message, *needs: Need) -> Resource:
    """A resource of a message that has a name of its own."""
    name = getattr(message, "cluster_name", "") or message.name  # type: ignore[attr-defined]  # all kinds have one
    return resource(name, serialize(message), needs)


def cluster(name: str, **more: Any) -> Resource:
    """A cluster whose endpoints come over ADS."""
    fields: dict[str, Any] = {"connect_timeout": timedelta(seconds=1), **more}
    message = pb("envoy.config.cluster.v3.Cluster")(name=name, type="EDS", eds_cluster_config={"eds_config": _ADS}, **fields)
    return made(message, Need(ENDPOINTS, name))


def endpoints(name: str, *ports: int) -> Resource:
    """Endpoints on loopback."""
    hosts = [{"endpoint": {"address": {"socket_address": {"address": LOOPBACK, "port_value": port}}}} for port in ports]
    locality = [{"lb_endpoints": hosts}] if hosts else []
    return made(pb("envoy.config.endpoint.v3.ClusterLoadAssignment")(cluster_name=name, endpoints=locality))


def routes(name: str, prefixes: dict[str, str]) -> Resource:
    """A route configuration from path prefix to cluster."""
    return made(
        pb("envoy.config.route.v3.RouteConfiguration")(
            name=name,
            virtual_hosts=[
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": prefix}, "route": {"cluster": to}} for prefix, to in prefixes.items()],
                }
            ],
        )
    )


def listener(name: str, port: int, route_config: str, secret: str | None = None, stat: str = "http") -> Resource:
    """An HTTP listener on loopback whose routes, and certificate, come over ADS."""
    manager = pb("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")(
        stat_prefix=stat,
        rds={"route_config_name": route_config, "config_source": _ADS},
        http_filters=[
            {
                "name": "router",
                "typed_config": any_of(pb("envoy.extensions.filters.http.router.v3.Router")()),
            }
        ],
    )
    needs = [Need(ROUTES, route_config)]
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": any_of(manager)}]}
    if secret is not None:
        needs.append(Need(SECRET, secret))
        tls = pb("envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext")(
            common_tls_context={"tls_certificate_sds_secret_configs": [{"name": secret, "sds_config": _ADS}]}
        )
        chain["transport_socket"] = {"name": "tls", "typed_config": any_of(tls)}
    message = pb("envoy.config.listener.v3.Listener")(
        name=name,
        address={"socket_address": {"address": LOOPBACK, "port_value": port}},
        filter_chains=[chain],
    )
    return made(message, *needs)


def certificate(name: str, chain: bytes, key: bytes) -> Resource:
    """A server certificate."""
    return made(
        pb("envoy.extensions.transport_sockets.tls.v3.Secret")(
            name=name,
            tls_certificate={"certificate_chain": {"inline_bytes": chain}, "private_key": {"inline_bytes": key}},
        )
    )


def json_of(response: httpx.Response) -> Any:
    """The JSON body of a response that must be 200."""
    assert response.status_code == 200, response.text
    return json.loads(response.text)
