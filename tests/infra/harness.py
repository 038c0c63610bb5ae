"""Bootstraps that need no control plane."""

from typing import Any

from gwanmun.infra.bootstrap import BootstrapOptions, bootstrap
from gwanmun.infra.rundir import RunDir

_TYPE = "type.googleapis.com/envoy.extensions.filters"


def answering(rundir: RunDir, port: int, body: str) -> dict[str, Any]:
    """Our bootstrap, but for a static listener that answers every request with `body` in place of xDS."""
    document = bootstrap(BootstrapOptions("test", rundir.admin_socket, rundir.xds_socket))
    del document["dynamic_resources"]
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}}],
    }
    listener = {
        "name": "front",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    document["static_resources"]["listeners"] = [listener]
    return document
