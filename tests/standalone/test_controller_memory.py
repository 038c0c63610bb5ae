"""The memory of a controller in a cluster of 5,000 routes and 50,000 endpoints. The API server is scripted, the controller a
process of its own that leads: it reads, resolves, writes the status of every route, and serves a proxy in each of three zones.
"""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from free_ports import free_port
from gateway_class import GATEWAY_CLASS
from gwanmun.app.serving import listening_socket, serving
from gwanmun.infra.authority import SERVER_NAME
from gwanmun.protos import pb

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROUTES = 5_000
SERVICES = 500
ENDPOINTS_OF_ONE = 100
ZONES = 3
MOST_MIB = 400
"""Well above what is needed, and far below what keeping everything that the API server says would take."""

DISCOVERY = "envoy.service.discovery.v3"
REQUEST, RESPONSE = f"{DISCOVERY}.DeltaDiscoveryRequest", f"{DISCOVERY}.DeltaDiscoveryResponse"
METHOD = f"/{DISCOVERY}.AggregatedDiscoveryService/DeltaAggregatedResources"
FLEET = "gw-gwanmun"
GROUP = "gateway.networking.k8s.io"
META = {"uid": "00000000-0000-0000-0000-000000000000", "generation": 1, "resourceVersion": "1", "namespace": "ai"}
BALLAST = {"kubectl.kubernetes.io/last-applied-configuration": "x" * 1024}
MANAGED = [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {f"f:{n}": {} for n in range(50)}}]


def metadata(name: str, **more: Any) -> dict[str, Any]:
    return {**META, "name": name, "annotations": BALLAST, "managedFields": MANAGED, **more}


def gateway_class(_: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(GATEWAY_CLASS)
    found["metadata"] |= {key: value for key, value in META.items() if key != "namespace"}
    return found


def gateway(_: int = 0) -> dict[str, Any]:
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "Same"}}}
    spec = {"gatewayClassName": gateway_class()["metadata"]["name"], "listeners": [listener]}
    return {"apiVersion": f"{GROUP}/v1", "kind": "Gateway", "metadata": metadata("gw"), "spec": spec}


def route(number: int) -> dict[str, Any]:
    match = {"path": {"type": "PathPrefix", "value": f"/r{number}"}}
    rule = {"matches": [match], "backendRefs": [{"name": f"s{number % SERVICES}", "port": 80}]}
    parent = {"group": GROUP, "kind": "Gateway", "name": "gw"}
    spec = {"parentRefs": [parent], "hostnames": [f"h{number % 100}.example.com"], "rules": [rule]}
    return {"apiVersion": f"{GROUP}/v1", "kind": "HTTPRoute", "metadata": metadata(f"r{number}"), "spec": spec}


def node(number: int) -> dict[str, Any]:
    labels = {"topology.kubernetes.io/zone": f"zone-{number}"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {**META, "namespace": "", "name": f"node-{number}", "labels": labels},
    }


def service(number: int) -> dict[str, Any]:
    spec = {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}], "clusterIP": "10.0.0.1"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(f"s{number}"), "spec": spec}


def endpoint_slice(number: int) -> dict[str, Any]:
    endpoints = [
        {
            "addresses": [f"10.{number >> 8}.{number & 255}.{last}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": f"node-{last}",
            "zone": f"zone-{last % 3}",
            "targetRef": {"kind": "Pod", "namespace": "ai", "name": f"s{number}-{last}", "uid": META["uid"]},
        }
        for last in range(ENDPOINTS_OF_ONE)
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(f"s{number}-x", labels={"kubernetes.io/service-name": f"s{number}"}),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        "endpoints": endpoints,
    }


class ApiServer:
    """Lists what there is in pages, has nothing new to say to those who watch, and takes whatever is written."""

    def __init__(self) -> None:
        self.lists: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
            f"/apis/{GROUP}/v1/gatewayclasses": (gateway_class, 1),
            f"/apis/{GROUP}/v1/gateways": (gateway, 1),
            f"/apis/{GROUP}/v1/httproutes": (route, ROUTES),
            "/api/v1/nodes": (node, ZONES),
            "/api/v1/services": (service, SERVICES),
            "/apis/discovery.k8s.io/v1/endpointslices": (endpoint_slice, SERVICES),
        }
        self.routes_written: set[str] = set()
        self.authority = asyncio.get_running_loop().create_future()
        """Of the xDS port, from the Secret that the controller has made."""

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        if request.method != "GET":
            if "/httproutes/" in path and path.endswith("/status"):
                self.routes_written.add(path)
            written = json.loads(await request.body() or b"{}")
            written["metadata"] = {**META, **written.get("metadata", {})}
            if path.endswith("/secrets"):
                self.authority.set_result(base64.b64decode(written["data"]["ca.crt"]))
            if path.endswith("/tokenreviews"):
                written["status"] = self.reviewed(written["spec"])
            return JSONResponse(written, 201 if request.method == "POST" else 200)
        if path not in self.lists:
            return Response("404 page not found", 404)
        if request.query_params.get("watch"):
            return StreamingResponse(_silence(), media_type="application/json")
        make, number = self.lists[path]
        start, size = int(request.query_params.get("continue", "0")), int(request.query_params["limit"])
        end = min(start + size, number)
        items = [make(index) for index in range(start, end)]
        return JSONResponse(
            {"metadata": {"resourceVersion": "1", "continue": str(end) if end < number else ""}, "items": items}
        )

    def reviewed(self, spec: dict[str, Any]) -> dict[str, Any]:
        """A token here is the name of a node: that of a proxy of the Gateway."""
        extra = {"authentication.kubernetes.io/node-name": [spec["token"]]}
        user = {"username": f"system:serviceaccount:ai:{FLEET}", "extra": extra}
        return {"authenticated": True, "audiences": spec["audiences"], "user": user}


async def _silence() -> AsyncIterator[bytes]:
    await asyncio.sleep(600)
    yield b""


async def configured(channel: grpc.aio.Channel, token: str) -> grpc.aio.StreamStreamCall:
    """The stream of a proxy that has been given all clusters and their endpoints. It stays open as long as the channel."""
    stream = channel.stream_stream(METHOD)(metadata=(("authorization", f"Bearer {token}"),))
    wanted = ["*"]
    for kind in ("cluster.v3.Cluster", "endpoint.v3.ClusterLoadAssignment"):
        ask = {"type_url": f"type.googleapis.com/envoy.config.{kind}"}
        subscription = pb(REQUEST)(node={"id": token, "cluster": "x"}, resource_names_subscribe=wanted, **ask)
        await stream.write(subscription.SerializeToString())
        found: set[str] = set()
        while len(found) < SERVICES:
            response = pb(RESPONSE).FromString(await stream.read())
            await stream.write(pb(REQUEST)(response_nonce=response.nonce, type_url=response.type_url).SerializeToString())
            found |= {resource.name for resource in response.resources}
        wanted = sorted(found)
    return stream


def most_mib(pid: int) -> int:
    """The most memory that the process has ever had in use."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of another process is read from /proc")
async def test_memory_is_bounded_with_5000_routes_and_50000_endpoints(tmp_path: Path) -> None:
    api, xds, health = ApiServer(), free_port(), free_port()
    socket = listening_socket(0, "127.0.0.1")
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "gwanmun-system"}}],
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{socket.getsockname()[1]}"}}],
        "users": [{"name": "x", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    command = [
        *(str(Path(sys.executable).with_name("gwanmun")), "controller", "--kubeconfig", str(tmp_path / "kubeconfig")),
        *("--xds-listen", f"127.0.0.1:{xds}", "--metrics-listen", f"127.0.0.1:{health}", "--controller-name"),
        gateway_class()["spec"]["controllerName"],
    ]
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", api.answer, methods=methods)])
    with (tmp_path / "log").open("w") as log:
        async with serving(app, socket):
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
            try:
                async with asyncio.timeout(180):
                    while len(api.routes_written) < ROUTES:
                        assert process.returncode is None, (tmp_path / "log").read_text()[-2000:]
                        await asyncio.sleep(0.5)
                    credentials = grpc.ssl_channel_credentials(await api.authority)
                    options = [("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.max_receive_message_length", 1 << 27)]
                    async with grpc.aio.secure_channel(f"127.0.0.1:{xds}", credentials, options=options) as channel:
                        proxies = [await configured(channel, f"node-{number}") for number in range(ZONES)]
                        assert len(proxies) == ZONES
                used = most_mib(process.pid)
                async with httpx.AsyncClient() as client:
                    assert (await client.get(f"http://127.0.0.1:{health}/readyz")).status_code == 200
                    metrics = (await client.get(f"http://127.0.0.1:{health}/metrics")).text
            finally:
                if process.returncode is None:
                    process.terminate()
                await process.wait()
    assert f'gwanmun_objects{{kind="HTTPRoute"}} {ROUTES}.0' in metrics
    print(f"{used} MiB")
    assert used < MOST_MIB
