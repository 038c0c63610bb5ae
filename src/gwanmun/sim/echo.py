"""A server that answers any request with what it saw, as JSON: for routes, filters and rewrites."""

from hashlib import sha256
from typing import Any

from gwanmun.sim.http import Exchange
from gwanmun.sim.spec import SimSpec


class EchoApi:
    """Every path is model work to it: faults hit them all."""

    def __init__(self, spec: SimSpec) -> None:
        self._spec = spec

    def is_model_work(self, path: str) -> bool:
        return True

    async def handle(self, exchange: Exchange) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in exchange.headers:
            headers.setdefault(name, []).append(value)
        seen: dict[str, Any] = {
            "served_by": self._spec.name,
            "method": exchange.method,
            "path": exchange.path,
            "query": exchange.query_string,
            "host": exchange.header("host"),
            "http_version": exchange.http_version,
            "headers": headers,
            "body_bytes": len(exchange.body),
            "body_sha256": sha256(exchange.body).hexdigest(),
            "client": exchange.client,
            "tls": exchange.tls,
        }
        await exchange.respond_json(200, seen)

    async def fail(self, exchange: Exchange, status: int, message: str, headers: list[tuple[str, str]]) -> None:
        """Answer with an error that was ordered, not earned."""
        await exchange.respond_json(status, {"served_by": self._spec.name, "error": message}, headers)
