"""Envoy's admin interface, over the unix socket of its run directory (or a port on 127.0.0.1).

Every call is a new connection: during a hot restart the address passes from one process to the next, and a kept
connection would go on asking the old one. Deliberately absent: what to conclude from the answers.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from gwanmun.infra.bootstrap import MODULE_METRICS, AdminAddress


class AdminError(Exception):
    """The admin interface gave no answer, or refused; the text says which."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """`state` is LIVE, DRAINING, PRE_INITIALIZING or INITIALIZING; `epoch` counts hot restarts."""

    version: str
    state: str
    epoch: int
    hot_restart_version: str


@dataclass(frozen=True, slots=True)
class Admin:
    """Raises AdminError from every call whose answer does not come within `timeout` seconds."""

    address: AdminAddress
    timeout: float = 5.0

    async def is_ready(self) -> bool:
        """Whether Envoy has its first whole configuration and has opened its listeners. False if nobody answers."""
        # Asked fifty times a second while Envoy waits for a configuration that is still being made: a client for HTTP would
        # take 2 ms of processor time for each, and a tenth of a core from who makes it.
        try:
            async with asyncio.timeout(self.timeout):
                reader, writer = await self._connect()
                with contextlib.closing(writer):
                    writer.write(b"GET /ready HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n")
                    return (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        except (OSError, ValueError):
            return False

    async def server_info(self) -> ServerInfo:
        info = await self._json("/server_info")
        return ServerInfo(
            version=info["version"].split("/")[1],
            state=info["state"],
            epoch=info["command_line_options"].get("restart_epoch", 0),
            hot_restart_version=info["hot_restart_version"],
        )

    async def config_dump(self, resource: str | None = None, *, name: str | None = None) -> dict[str, Any]:
        """The configuration in force. `resource` is a field such as "dynamic_listeners", `name` a regular expression."""
        query = {"resource": resource, "name_regex": name, "include_eds": ""}
        return await self._json("/config_dump", **{key: value for key, value in query.items() if value is not None})

    async def clusters(self) -> dict[str, Any]:
        """Clusters and their endpoints with health and counters."""
        return await self._json("/clusters", format="json")

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges whose names contain the regular expression `pattern`."""
        listed = await self._json("/stats", format="json", filter=pattern)
        return {stat["name"]: stat["value"] for stat in listed["stats"] if "name" in stat and isinstance(stat["value"], int)}

    def prometheus(self, pattern: str = "") -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Statistics whose names contain `pattern`, as Prometheus scrapes them, histograms included: in pieces, since with
        thousands of backends they are many megabytes."""
        return self._pieces("/stats/prometheus", filter=pattern)

    def module_metrics(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """What the native module has counted, in the same way; to be asked for only where it is loaded."""
        return self._pieces(MODULE_METRICS)

    @asynccontextmanager
    async def _pieces(self, path: str, **query: str) -> AsyncGenerator[AsyncIterator[bytes], None]:
        try:
            async with self._client() as client, client.stream("GET", path, params=query) as response:
                if response.status_code != httpx.codes.OK:
                    raise AdminError(f"Envoy's admin interface answered {path} with {response.status_code}")
                yield response.aiter_bytes()
        except httpx.HTTPError as error:
            raise self._silent(error) from error

    async def fail_health_checks(self) -> None:
        """From now on answers ask their clients to close the connection, and health checks fail."""
        await self._ok("POST", "/healthcheck/fail")

    async def drain_listeners(self) -> None:
        """Close the listening sockets; connections that exist go on."""
        await self._ok("POST", "/drain_listeners")

    async def reopen_logs(self) -> None:
        """Write access logs to files of their names again, after those were moved aside."""
        await self._ok("POST", "/reopen_logs")

    async def quit(self) -> None:
        """End Envoy at once, with whatever it is doing."""
        await self._ok("POST", "/quitquitquit")

    async def unfinished(self) -> int:
        """How many requests and TCP connections clients are waiting on; idle HTTP connections are none."""
        gauges = await self.stats(r"(downstream_rq_active|downstream_cx_active|downstream_sess_active)$")
        requests = sessions = accepted = http_connections = 0
        for name, value in gauges.items():
            if re.match(r"(http|listener)\.admin\.", name):
                continue
            if name.endswith("rq_active"):
                requests += value
            elif name.endswith("sess_active"):
                sessions += value
            elif name.startswith("http."):
                http_connections += value
            elif name.startswith("listener.") and ".worker_" not in name:
                accepted += value
        # Accepted connections that speak no HTTP carry TCP or TLS through: they are in use as long as they are open.
        return requests + sessions + max(0, accepted - http_connections)

    async def _json(self, path: str, **query: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self._ok("GET", path, **query))
        return answer

    async def _ok(self, method: str, path: str, **query: str) -> str:
        response = await self._send(method, path, **query)
        if response.status_code != httpx.codes.OK:
            raise AdminError(f"Envoy's admin interface answered {path} with {response.status_code}: {response.text[:200]}")
        return response.text

    async def _send(self, method: str, path: str, **query: str) -> httpx.Response:
        try:
            async with self._client() as client:
                return await client.request(method, path, params=query)
        except httpx.HTTPError as error:
            raise self._silent(error) from error

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.address, int):
            return await asyncio.open_connection("127.0.0.1", self.address)
        return await asyncio.open_unix_connection(self.address)

    def _client(self) -> httpx.AsyncClient:
        at_port = isinstance(self.address, int)
        # With `verify` and `trust_env` on, httpx would read all the authorities of the machine for each call: 40 ms of
        # processor time. No call here leaves this machine or speaks TLS.
        transport = httpx.AsyncHTTPTransport(uds=None if at_port else str(self.address), verify=False)
        url = f"http://127.0.0.1:{self.address}" if at_port else "http://envoy"
        return httpx.AsyncClient(transport=transport, base_url=url, timeout=self.timeout, trust_env=False)

    def _silent(self, error: httpx.HTTPError) -> AdminError:
        return AdminError(f"Envoy's admin interface at {self.address} gives no answer: {error or type(error).__name__}")
