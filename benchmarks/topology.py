"""Three zones a millisecond apart: what crosses between them, how fast requests are, and what happens when a zone fails.

A proxy and two model servers in each zone of a test cluster (needs root and Go, see docs/how-to/test-cluster.md). Clients ask
the proxy of their own zone, as a zonal load balancer has them do. The same Service is measured without a preference and with
`trafficDistribution: PreferClose`. Then, with it, one zone's servers are taken away and come back, and
crash: the other zones answer for them, but for what was under way in a server that is killed. Bytes are those of all packets
between pods of different zones. Latencies without and with a preference are those of 100 requests a second in each zone; all
else is at full speed.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from figures import Goal, at_most, goals, percentile, table

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.kubernetes.cluster import Cluster, ClusterOptions  # noqa: E402

from gwanmun.sim.load import Load, Tally, Target, http_request  # noqa: E402

ZONE_DELAY_S = 0.001
ZONES = ("zone-a", "zone-b", "zone-c")
SERVERS_PER_ZONE = 2
CONNECTIONS_PER_ZONE = 1
"""Few: on a machine whose cores are all busy, waiting for a core is all that would be measured."""
CRASHES = 3
SECONDS = 15.0
INTERVAL_S = 0.01
HOST = "inference.example.com"

GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: gwanmun
  listeners: [{name: http, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: servers}
spec: {selector: {app: server}, ports: [{port: 8080, targetPort: 3000}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: servers}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: servers, port: 8080}]}]
"""
SERVERS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: server-ZONE}
spec:
  replicas: COUNT
  selector: {matchLabels: {app: server, zone: ZONE}}
  template:
    metadata: {labels: {app: server, zone: ZONE}}
    spec:
      nodeSelector: {topology.kubernetes.io/zone: ZONE}
      containers:
      - name: server
        image: echo-basic
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        readinessProbe: {httpGet: {path: /health, port: 3000}}
        lifecycle: {preStop: {sleep: {seconds: 2}}}
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """`crossed` is in bytes for each answer; `latencies` in seconds."""

    per_second: float
    crossed: float
    latencies: tuple[float, ...]
    failed: int

    def cells(self) -> tuple[str, ...]:
        milliseconds = [percentile(self.latencies, share) * 1000 for share in (0.5, 0.99)]
        return (f"{self.per_second:,.0f}", *(f"{one:.2f}" for one in milliseconds), f"{self.crossed:,.0f}", str(self.failed))


COLUMNS = ("requests/s", "P50, ms", "P99, ms", "bytes across zones per request", "failed")


def run() -> str:
    return asyncio.run(_run())


async def _run() -> str:
    async with _world() as cluster:
        proxies = await _proxies(cluster)
        anywhere = await _measure(cluster, proxies)
        await _prefer(cluster, "PreferClose")
        near = await _measure(cluster, proxies)
        gone = await _zone_goes(cluster, proxies)
        crashed = await _zone_crashes(cluster, proxies)
    side_by_side = table(
        ("", *COLUMNS), [("no preference", *anywhere.cells()), ("trafficDistribution: PreferClose", *near.cells())]
    )
    failing = table(
        ("servers of zone-a", *COLUMNS),
        [("taken away, and back", *gone.cells()), (f"killed {CRASHES} times", *crashed.cells())],
    )
    return "\n\n".join((side_by_side, failing, goals(_goals(anywhere, near, gone, crashed))))


def _goals(anywhere: Measured, near: Measured, gone: Measured, crashed: Measured) -> list[Goal]:
    def change(now: float, before: float) -> float:
        return (now / before - 1) * 100

    most = CRASHES * SERVERS_PER_ZONE * CONNECTIONS_PER_ZONE
    p99 = change(percentile(near.latencies, 0.99), percentile(anywhere.latencies, 0.99))
    faster = change(near.per_second, anywhere.per_second)
    return [
        at_most("bytes across zones, with topology", change(near.crossed, anywhere.crossed), -50, " %"),
        at_most("P99, with topology", p99, -30, " %"),
        Goal("requests/s, with topology", ">= +20 %", f"{faster:+.0f} %", faster >= 20),
        at_most("failed requests while a zone goes and comes back", gone.failed, 0),
        # One that is under way in a server when it is killed cannot be answered, nor be asked twice unknown to its client.
        at_most("failed requests while the servers of a zone crash", crashed.failed, most),
    ]


@asynccontextmanager
async def _world() -> AsyncIterator[Cluster]:
    options = ClusterOptions(nodes=3, zone_delay=ZONE_DELAY_S)
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(Cluster(options=options))
        crds = (ROOT / "src" / "gwanmun" / "api" / "crds").glob("gwanmun.dev_*.yaml")
        await cluster.kubectl("apply", "--server-side", *(f"--filename={path}" for path in crds))
        await cluster.kubectl("apply", "-f", str(ROOT / "conformance" / "gatewayclass.yaml"))
        controller = await cluster.start_process(
            str(Path(sys.executable).parent / "gwanmun"),
            *("controller", f"--xds-address={cluster.host_address}:18000", f"--proxy-replicas={len(ZONES)}"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(controller.terminate)
        servers = (SERVERS.replace("ZONE", zone).replace("COUNT", str(SERVERS_PER_ZONE)) for zone in ZONES)
        await cluster.kubectl("apply", "-f", "-", stdin="---".join((*servers, GATEWAY)))
        for zone in ZONES:
            await cluster.kubectl("rollout", "status", f"deployment/server-{zone}", "--timeout=60s")

        async def there() -> bool:
            return "gw-gwanmun" in await cluster.kubectl("get", "deployment", "-o", "name")

        await cluster.eventually("the Gateway has its proxies", there)
        await cluster.kubectl("rollout", "status", "deployment/gw-gwanmun", "--timeout=60s")
        yield cluster


async def _proxies(cluster: Cluster) -> dict[str, Target]:
    """By zone, the listener of its proxy in the pod itself."""
    service = await cluster.get("service", "gw-gwanmun")
    (port,) = service["spec"]["ports"]
    selector = "gateway.networking.k8s.io/gateway-name=gw"
    pods = json.loads(await cluster.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    found = {
        pod["spec"]["nodeName"].rpartition("-")[0]: Target(
            pod["status"]["podIP"], port["targetPort"], http_request("GET", HOST, "/")
        )
        for pod in pods
    }
    if sorted(found) != list(ZONES):
        raise RuntimeError(f"there are proxies in {', '.join(sorted(found))} only")
    return found


async def _prefer(cluster: Cluster, distribution: str) -> None:
    patch = json.dumps({"spec": {"trafficDistribution": distribution}})
    await cluster.kubectl("patch", "service", "servers", "--type=merge", "-p", patch)

    async def hinted() -> bool:
        slices = await cluster.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=servers", "-o", "json")
        return all(one.get("hints") for item in json.loads(slices)["items"] for one in item["endpoints"])

    await cluster.eventually("every endpoint has a hint", hinted)


@asynccontextmanager
async def _load(cluster: Cluster, proxies: dict[str, Target], interval: float = 0.0) -> AsyncIterator[list[Tally]]:
    """In each zone, clients of its own proxy."""
    with cluster.network():
        async with AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(Load(target, connections=CONNECTIONS_PER_ZONE, interval=interval))
                for target in proxies.values()
            ]


async def _during(
    cluster: Cluster, tallies: list[Tally], seconds: float, began: tuple[float, int, Counter[str]] | None = None
) -> Measured:
    """What is measured in so many seconds, or since `began`."""
    started, crossed, seen = began or _now(cluster, tallies)
    await asyncio.sleep(seconds)
    ended, crossed_now, answered = _now(cluster, tallies)
    number = answered["answered"] - seen["answered"]
    latencies = [one for position, tally in enumerate(tallies) for one in tally.latencies[seen[str(position)] :]]
    return Measured(
        number / (ended - started),
        (crossed_now - crossed) / max(1, number),
        tuple(latencies),
        answered["failed"] - seen["failed"],
    )


def _now(cluster: Cluster, tallies: list[Tally]) -> tuple[float, int, Counter[str]]:
    """The time, the bytes that have crossed, and what has been answered, by the position of its tally too."""
    counted = Counter({str(position): len(tally.latencies) for position, tally in enumerate(tallies)})
    counted["answered"] = sum(tally.answered for tally in tallies)
    counted["failed"] = sum(tally.failed for tally in tallies)
    return time.perf_counter(), sum(cluster.crossed().values()), counted


async def _measure(cluster: Cluster, proxies: dict[str, Target]) -> Measured:
    async with _load(cluster, proxies) as tallies:
        await asyncio.sleep(3)  # connections are made, and what was changed has arrived
        full = await _during(cluster, tallies, SECONDS)
    async with _load(cluster, proxies, INTERVAL_S) as tallies:
        await asyncio.sleep(1)
        steady = await _during(cluster, tallies, SECONDS)
    return replace(full, latencies=steady.latencies, failed=full.failed + steady.failed)


async def _zone_goes(cluster: Cluster, proxies: dict[str, Target]) -> Measured:
    """All servers of a zone end, and come back."""
    async with _load(cluster, proxies) as tallies:
        await asyncio.sleep(1)
        began = _now(cluster, tallies)
        await _scale(cluster, 0)
        await asyncio.sleep(SECONDS / 2)
        await _scale(cluster, SERVERS_PER_ZONE)
        return await _during(cluster, tallies, SECONDS / 4, began)


async def _scale(cluster: Cluster, servers: int) -> None:
    await cluster.kubectl("scale", f"deployment/server-{ZONES[0]}", f"--replicas={servers}")
    await cluster.kubectl("rollout", "status", f"deployment/server-{ZONES[0]}", "--timeout=60s")


async def _zone_crashes(cluster: Cluster, proxies: dict[str, Target]) -> Measured:
    """All servers of a zone are killed at once, again and again; each time they are started anew a little later."""
    async with _load(cluster, proxies) as tallies:
        await asyncio.sleep(1)
        began = _now(cluster, tallies)
        for _ in range(CRASHES):
            await asyncio.to_thread(_kill_servers, ZONES[0])
            await asyncio.sleep(SECONDS / 4)
        return await _during(cluster, tallies, SECONDS / 4, began)


def _kill_servers(zone: str) -> None:
    """SIGKILL to the program in every server's pod of the zone."""
    mark = f"HOSTNAME=server-{zone}-".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked
            environment = (entry / "environ").read_bytes().split(b"\0")
            if any(one.startswith(mark) for one in environment) and b"echo-basic" in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
