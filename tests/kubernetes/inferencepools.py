"""InferencePools in the test cluster: pods of model servers, endpoint pickers as pods, Gateways, and requests to them.

A pool's model servers, its picker and itself share a name. Deliberately absent: routes, which are what tests are about.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.envoy.picker import SELECTION, SERVED
from tests.kubernetes.cluster import ClusterError
from tests.kubernetes.installed import Installed

NAMESPACE = "pools"
GROUP = "inference.networking.k8s.io"
PRIMARY, SECONDARY = "primary", "secondary"
"""Names of Gateways, and of pools."""

# One proxy for each Gateway: three, as the class has it, would take memory and show no more.
GATEWAYS = f"""
apiVersion: kgateway.dev/v1alpha1
kind: GatewayClassConfig
metadata: {{name: {NAMESPACE}}}
spec: {{proxy: {{replicas: 1, resources: {{limits: {{cpu: "1"}}}}}}}}
""" + "".join(
    f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  gatewayClassName: kgateway
  infrastructure: {{parametersRef: {{group: kgateway.dev, kind: GatewayClassConfig, name: {NAMESPACE}}}}}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""
    for name in (PRIMARY, SECONDARY)
)
BODY = b'{"model": "conformance-fake-model", "prompt": "Write as if you were a critic: San Francisco"}'
_CONNECTIONS = 10
Conditions = dict[str, dict[str, tuple[str, str]]]
"""Status and reason by type, by the name of the parent."""


def servers(name: str, *ports: int) -> str:
    """Three pods whose containers say which of them has answered, each on a port of its own and, with HTTP/2, on the next one;
    and the headless Service in which their picker finds them."""
    containers = "".join(
        f"""
      - name: echo-{port}
        image: registry.example/gateway-api/echo-basic:v1
        env:
        - {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: NAMESPACE, valueFrom: {{fieldRef: {{fieldPath: metadata.namespace}}}}}}
        - {{name: HTTP_PORT, value: "{port}"}}
        - {{name: H2C_PORT, value: "{port + 1}"}}
        readinessProbe: {{httpGet: {{path: /health, port: {port}}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{sleep: {{seconds: 1}}}}}}"""
        for port in ports
    )
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:{containers}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec: {{clusterIP: None, selector: {{app: {name}}}, ports: [{{port: {ports[0]}}}]}}
"""


def picker(name: str, *ports: int, of: str | None = None) -> str:
    """A picker for these ports of the model servers `of`, which are otherwise called as it is."""
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}-picker, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: {name}-picker}}}}
  template:
    metadata: {{labels: {{app: {name}-picker}}}}
    spec:
      containers:
      - name: picker
        image: registry.example/endpoint-picker
        args: [{", ".join(f'"{argument}"' for argument in (f"{of or name}.{NAMESPACE}", *ports))}]
        readinessProbe: {{tcpSocket: {{port: 9002}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}-picker, namespace: {NAMESPACE}}}
spec:
  selector: {{app: {name}-picker}}
  ports: [{{port: 9002, appProtocol: http2}}]
"""


def pool(name: str, *ports: int, of: str, asks: str | None, **more: str) -> str:
    """A pool of the model servers `of`. `asks` names its picker, `more` are further fields of its spec, and failureMode."""
    mode = more.pop("failureMode", "FailClose")
    fields = "".join(f"  {key}: {value}\n" for key, value in more.items())
    if asks is not None:
        fields += f"  endpointPickerRef: {{name: {asks}-picker, port: {{number: 9002}}, failureMode: {mode}}}\n"
    return f"""
apiVersion: {GROUP}/v1
kind: InferencePool
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: {of}}}}}
  targetPorts: [{", ".join(f"{{number: {port}}}" for port in ports)}]
{fields}"""


def rule(*pools: str | tuple[str, int], path: str = "/", port: int | None = None) -> str:
    """A rule that leads to pools, with weights or without. `port` is that of its backendRefs."""
    pairs = [(one, 1) if isinstance(one, str) else one for one in pools]
    extra = f", port: {port}" if port is not None else ""
    backends = ", ".join(f"{{group: {GROUP}, kind: InferencePool, name: {one}, weight: {w}{extra}}}" for one, w in pairs)
    return f"{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{backends}]}}"


def route(name: str, *rules: str, gateway: str = PRIMARY) -> str:
    """An HTTPRoute of the host of its name."""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  parentRefs: [{{name: {gateway}}}]
  hostnames: [{name}.example.com]
  rules: [{", ".join(rules)}]
"""


@dataclass(frozen=True)
class Answer:
    """Of a request through a Gateway; status 0 where there was none."""

    status: int
    pod: str = ""
    port: str = ""
    protocol: str = ""
    served: str = ""
    """The endpoint that served as far as the picker was told."""

    @property
    def by(self) -> str:
        """The model servers that answered."""
        return self.pod.partition("-")[0]


@dataclass
class Pools:
    """The namespace, and what is asked of it. `addresses` are those of the Gateways."""

    world: Installed
    addresses: dict[str, str] = field(default_factory=dict)

    async def apply(self, *manifests: str) -> None:
        await self.world.cluster.kubectl("apply", "--server-side", "-f", "-", stdin="---".join(manifests))

    async def delete_route(self, name: str) -> None:
        await self.world.cluster.kubectl("delete", "httproute", name, "-n", NAMESPACE)

    async def ips(self, name: str) -> dict[str, str]:
        """Addresses of model servers by pod; empty where one has none yet."""
        return {pod: one["status"].get("podIP", "") for pod, one in (await self.world.pods(NAMESPACE, f"app={name}")).items()}

    async def conditions(self, kind: str, name: str) -> Conditions:
        """Status and reason by type, by the name of the parent."""
        parents = (await self.world.cluster.get(kind, name, NAMESPACE)).get("status", {}).get("parents", [])
        return {
            parent["parentRef"]["name"]: {one["type"]: (one["status"], one["reason"]) for one in parent["conditions"]}
            for parent in parents
        }

    async def told(self, kind: str, name: str, expected: Conditions) -> None:
        """Wait until the conditions are these, and no other parent has any."""

        async def as_expected() -> bool:
            found = await self.conditions(kind, name)
            if found != expected:
                raise ClusterError(str(found))
            return True

        await self.world.cluster.eventually(f"the {kind} {name} says {expected}", as_expected)

    async def asked(
        self, host: str, path: str = "/", *, times: int = 1, gateway: str = PRIMARY, picked: Sequence[str] = ()
    ) -> list[Answer]:
        """Requests with a body to the host of a route, some at a time; `picked` is what its picker is told to pick from."""
        selection = {SELECTION: ",".join(picked)} if picked else {}
        headers = {"host": f"{host}.example.com", **selection}
        limits = httpx.Limits(max_connections=_CONNECTIONS)
        client = httpx.AsyncClient(base_url=f"http://{self.addresses[gateway]}", timeout=10, trust_env=False, limits=limits)
        with self.world.cluster.network():  # around all of them: the thread is in one network at a time
            async with client:
                return await asyncio.gather(*(_answer(client, path, headers) for _ in range(times)))

    async def answered(self, status: int, host: str, path: str = "/", *, gateway: str = PRIMARY) -> None:
        """Wait until a request has this status."""

        async def as_expected() -> bool:
            (found,) = await self.asked(host, path, gateway=gateway)
            if found.status != status:
                raise ClusterError(str(found))
            return True

        await self.world.cluster.eventually(f"{host}{path} of {gateway} is answered with {status}", as_expected)

    async def reached(self, host: str, name: str, *, times: int = 1, gateway: str = PRIMARY) -> dict[str, str]:
        """Wait until each of these model servers answers one of so many requests that pick it. Gives what `ips` gives."""
        ips = await self.ips(name)
        for pod, ip in ips.items():

            async def answers(pod: str = pod, ip: str = ip) -> bool:
                found = await self.asked(host, times=times, gateway=gateway, picked=[ip])
                if pod not in {answer.pod for answer in found}:
                    raise ClusterError(str(found))
                return True

            await self.world.cluster.eventually(f"{pod} answers to {host} of {gateway}", answers)
        return ips


async def _answer(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> Answer:
    try:
        answer = await client.post(path, content=BODY, headers=headers)
    except httpx.HTTPError as error:
        return Answer(0, repr(error))
    if answer.status_code != 200:
        return Answer(answer.status_code)
    saw = answer.json()
    return Answer(200, saw["pod"], saw["httpPort"], saw["proto"], answer.headers.get(SERVED, ""))


@contextlib.asynccontextmanager
async def pools_served(world: Installed, *manifests: str, deployments: Iterable[str]) -> AsyncIterator[Pools]:
    """The Gateways serve and the Deployments are rolled out; the namespace goes with it."""
    pools = Pools(world)
    await world.cluster.kubectl("create", "namespace", NAMESPACE)
    await pools.apply(GATEWAYS, *manifests)
    for deployment in deployments:
        await world.rolled_out(NAMESPACE, deployment)
    for gateway in (PRIMARY, SECONDARY):

        async def served(gateway: str = gateway) -> bool:
            status: dict[str, Any] = (await world.cluster.get("gateway", gateway, NAMESPACE)).get("status", {})
            if not status.get("addresses"):
                raise ClusterError(str(status))
            pools.addresses[gateway] = status["addresses"][0]["value"]
            return (await pools.asked("nobody", gateway=gateway))[0].status == 404

        await world.cluster.eventually(f"{gateway} answers", served, within=60)
    yield pools
    await world.cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
    await world.cluster.kubectl("delete", "gatewayclassconfigs.kgateway.dev", NAMESPACE)
