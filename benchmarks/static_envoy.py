"""Envoys that are configured by hand: the reference that the gateway is compared with, and the backend behind both.

The reference is what somebody writes who only wants a header route: one worker, no access log, no filter but the router.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gateway
from machine import pinned

from gwanmun.infra.envoy import find_envoy

_TYPES = "type.googleapis.com/envoy.extensions.filters"
_PATIENCE_S = 20.0

ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 80}}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 80, "total_tokens": 280},
    }
)
"""0.6 KB, as a short chat answer is."""


def reference(port: int, backend: int, *, access_log: str | None = None) -> dict[str, Any]:
    """One header route to one backend. With `access_log` it does two things more that gwanmun always does: it logs requests,
    and sends one again where the backend has not seen it (for which Envoy keeps a copy of the body)."""
    retries = {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2}
    routes = [
        {
            "match": {"prefix": "/", "headers": [{"name": "x-model-id", "string_match": {"exact": "gpt-4"}}]},
            "route": {"cluster": "backend", "timeout": "0s", **({"retry_policy": retries} if access_log else {})},
        }
    ]
    cluster = {
        "name": "backend",
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [{"endpoint": _address(backend)}]}]},
    }
    more: dict[str, Any] = {}
    if access_log is not None:
        more["access_log"] = [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": access_log,
                },
            }
        ]
    return _document(_listener(port, [{"name": "all", "domains": ["*"], "routes": routes}], [], more), [cluster])


def backend(port: int, name: str = "backend") -> dict[str, Any]:
    """Reads each request to its end, then answers as a model server would, at once; `x-served-by` is its name."""
    buffer = {
        "name": "envoy.filters.http.buffer",
        "typed_config": {"@type": f"{_TYPES}.http.buffer.v3.Buffer", "max_request_bytes": 64 * 1024 * 1024},
    }
    answer = {
        "match": {"prefix": "/"},
        "direct_response": {"status": 200, "body": {"inline_string": ANSWER}},
        "response_headers_to_add": [
            {"header": {"key": "content-type", "value": "application/json"}},
            {"header": {"key": "x-served-by", "value": name}},
        ],
    }
    return _document(_listener(port, [{"name": "all", "domains": ["*"], "routes": [answer]}], [buffer], {}), [])


@contextmanager
def running(document: dict[str, Any], port: int, core: int | None) -> Iterator[int]:
    """An Envoy with that configuration, answering; its process id."""
    with tempfile.TemporaryDirectory(prefix="gwanmun-bench-") as folder:
        config, log = Path(folder) / "envoy.json", Path(folder) / "envoy.log"
        config.write_text(json.dumps(document))
        line = [*pinned(core), str(find_envoy().path), "--config-path", str(config), "--concurrency", "1"]
        with log.open("wb") as said:
            process = subprocess.Popen([*line, "--disable-hot-restart", "--log-level", "warning"], stdout=said, stderr=said)
        try:
            until = time.monotonic() + _PATIENCE_S
            while gateway.status(port, host="127.0.0.1") != 200:
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the static Envoy does not serve:\n{log.read_text()}")
                time.sleep(0.02)
            yield process.pid
        finally:
            process.kill()
            process.wait()


def _listener(port: int, hosts: list[Any], filters: list[Any], more: dict[str, Any]) -> dict[str, Any]:
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"}}
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "static",
        "route_config": {"name": "static", "virtual_hosts": hosts},
        "http_filters": [*filters, router],
        **more,
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": "static", **_address(port), "filter_chains": [chain]}


def _document(listener: dict[str, Any], clusters: list[Any]) -> dict[str, Any]:
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _address(port: int) -> dict[str, Any]:
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
