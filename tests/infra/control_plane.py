"""A whole control plane in little, to be run and killed: arguments are folder, runtime directory, port and answer.

Says "applied" and Envoy's process id once Envoy serves the answer on the port.
"""

import asyncio
import random
import sys
import time
from pathlib import Path

from gwanmun.infra.bootstrap import BootstrapOptions, bootstrap
from gwanmun.infra.envoy import find_envoy
from gwanmun.infra.launch import LaunchOptions
from gwanmun.infra.local import LocalEnvoy
from gwanmun.infra.rundir import Lock, run_directory
from gwanmun.protos import any_of, pb, serialize
from gwanmun.xds_server import Publisher, ResourceSet, XdsServer, resource
from gwanmun.xds_server.resources import LISTENER, ROUTES, Need


def resources(port: int, answer: str) -> ResourceSet:
    manager = pb("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")(
        stat_prefix="front",
        rds={"route_config_name": "routes", "config_source": {"ads": {}, "resource_api_version": "V3"}},
        http_filters=[{"name": "router", "typed_config": any_of(pb("envoy.extensions.filters.http.router.v3.Router")())}],
    )
    listener = pb("envoy.config.listener.v3.Listener")(
        name="front",
        address={"socket_address": {"address": "127.0.0.1", "port_value": port}},
        filter_chains=[{"filters": [{"name": "http", "typed_config": any_of(manager)}]}],
    )
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": answer}}}
    routes = pb("envoy.config.route.v3.RouteConfiguration")(
        name="routes", virtual_hosts=[{"name": "all", "domains": ["*"], "routes": [route]}]
    )
    return ResourceSet(
        {
            LISTENER: {"front": resource("front", serialize(listener), [Need(ROUTES, "routes")])},
            ROUTES: {"routes": resource("routes", serialize(routes))},
        }
    )


async def main(folder: str, runtime: str, port: str, answer: str) -> None:
    rundir = run_directory(Path(folder), {"XDG_RUNTIME_DIR": runtime})
    with Lock(rundir):
        publisher = Publisher()
        server = XdsServer(publisher, lambda node, peer: node.id)
        rundir.xds_socket.unlink(missing_ok=True)
        await server.start(f"unix:{rundir.xds_socket}")
        serial = publisher.publish(rundir.name, resources(int(port), answer))
        envoy = LocalEnvoy(
            rundir,
            find_envoy(),
            report=lambda event: print(event, flush=True),
            clock=time.monotonic,
            draw=random.random,
            options=LaunchOptions(concurrency=1),
        )
        await envoy.start(bootstrap(BootstrapOptions(rundir.name, rundir.admin_socket, rundir.xds_socket)))
        await envoy.wait_ready()
        await publisher.until_applied(rundir.name, serial)
        print("applied", envoy.status.pid, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
