"""The specification's world in a test cluster: the chart installed, its manifests applied, simulated model servers as pods.

cert-manager is played by `issue_certificates`, which makes the Secrets that the controller's Certificates ask for. Deliberately
absent: what the manifests say (`examples/specification`) and what is asked of them (`gwanmun.app.demo`).
"""

import contextlib
import json
import os
import select
import signal
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.kubernetes.cluster import Cluster, ClusterError

from gwanmun.app.certificates import Authority, tls_secret
from gwanmun.app.demo import CHAT, GATEWAY, HTTP_HOST, SERVERS
from gwanmun.app.probe import Probe
from gwanmun.sim.load import Target, http_request

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "gwanmun"
VALUES = ROOT / "tests" / "chart" / "specification-values.yaml"
EXAMPLE = ROOT / "examples" / "specification"
SYSTEM = "kgateway-system"
RELEASE = "kgateway"
CONTROLLER = "kgateway-gwanmun"
FLEET = f"{GATEWAY.name}-kgateway"
PROXIES = f"gateway.networking.k8s.io/gateway-name={GATEWAY.name}"
_DIES_WITHIN_S = 10.0
_CHAT_BODY = json.dumps({"model": "gpt-4", "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]}).encode()


def _crd(group: str, kind: str, version: str) -> dict[str, Any]:
    """As much of another project's kind as is needed to see what is asked of it."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural},
            "scope": "Namespaced",
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


_OTHERS_KINDS = (
    _crd("cert-manager.io", "Certificate", "v1"),
    _crd("monitoring.coreos.com", "ServiceMonitor", "v1"),
    _crd("monitoring.coreos.com", "PodMonitor", "v1"),
)


QUICK = """
apiVersion: kgateway.dev/v1alpha1
kind: GatewayClassConfig
metadata: {name: kgateway-config}
spec: {proxy: {settleTimeout: 5s}}
"""
"""What the example's class has besides: here load balancers are as quick as the cluster, and tests wait for proxies to end."""


def model_servers() -> str:
    """For each Service of the example: pods that answer, and the selector that leads to them. The Services themselves stay
    as the example has them; gpt-4, which most tests ask, has two pods."""
    ports = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["spec"]["ports"][0]["port"]
        for one in yaml.safe_load_all((EXAMPLE / "60-services.yaml").read_text())
        if one["kind"] == "Service"
    }
    documents: list[dict[str, Any]] = []
    for service, spec in SERVERS.items():
        port = ports[tuple(service)]
        models = f",model={'+'.join(spec.models)}" if spec.engine != "grpc" else ""
        labels = {"app": spec.name}
        container = {
            "name": "server",
            "image": "gwanmun-sim",
            "args": [f"{spec.engine}:name={spec.name},host=0.0.0.0,port={port}{models}"],
            "ports": [{"containerPort": port}],
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 2},
            "lifecycle": {"preStop": {"sleep": {"seconds": 2}}},
        }
        template = {
            "metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 15, "containers": [container]},
        }
        documents.append(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": spec.name, "namespace": service.namespace},
                "spec": {
                    "replicas": 2 if spec.name == "vllm-gpt4" else 1,
                    "selector": {"matchLabels": labels},
                    "template": template,
                },
            }
        )
        documents.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": service.name, "namespace": service.namespace},
                "spec": {"selector": labels},
            }
        )
    return yaml.safe_dump_all(documents)


class Installed:
    """The world, serving at `address`. `authority` has signed the certificates of its listeners."""

    def __init__(self, cluster: Cluster, authority: Authority, address: str, folder: Path) -> None:
        self.cluster = cluster
        self.authority = authority
        self.address = address
        self._folder = folder

    @property
    def probe(self) -> Probe:
        """A client of the listeners; to be used inside `cluster.network()`."""
        path = self._folder / "authority.pem"
        path.write_text(self.authority.pem)
        return Probe({port: port for port in (80, 443, 8443)}, path, self.address)

    def chat(self, model: str = "gpt-4") -> Target:
        """A chat completion over HTTPS, routed by the header x-model-id."""
        tls = ssl.create_default_context(cadata=self.authority.pem)
        request = http_request("POST", HTTP_HOST, CHAT, _CHAT_BODY, (("x-model-id", model),))
        return Target(self.address, 443, request, tls, HTTP_HOST)

    async def json(self, *arguments: str) -> Any:
        """`kubectl get ... -o json`."""
        return json.loads(await self.cluster.kubectl("get", *arguments, "-o", "json"))

    async def pods(self, namespace: str, selector: str) -> dict[str, Any]:
        """Pods that run and are not about to end, by name."""
        found = (await self.json("pods", "-n", namespace, "-l", selector))["items"]
        return {one["metadata"]["name"]: one for one in found if "deletionTimestamp" not in one["metadata"]}

    async def controllers(self) -> dict[str, Any]:
        """The pods of the controllers."""
        return await self.pods(SYSTEM, "app.kubernetes.io/component=controller")

    async def proxies(self) -> dict[str, Any]:
        """The pods of the Gateway's proxies."""
        return await self.pods(GATEWAY.namespace, PROXIES)

    async def rolled_out(self, namespace: str, deployment: str, within: int = 90) -> None:
        """Wait until the Deployment is as it should be."""
        await self.cluster.kubectl("rollout", "status", f"deployment/{deployment}", "-n", namespace, f"--timeout={within}s")

    async def leader(self) -> str:
        """The pod of the controller that leads, or empty."""
        holder = (await self.json("lease", f"gwanmun-controller.{SYSTEM}.{RELEASE}", "-n", SYSTEM))["spec"].get(
            "holderIdentity"
        ) or ""
        return str(holder).rsplit("_", 1)[0]

    async def metric(self, pod: str, name: str) -> float:
        """A metric of a controller's pod."""
        address = (await self.controllers())[pod]["status"]["podIP"]
        text = await self.cluster.run("curl", "-sf", "-m", "5", f"http://{address}:9090/metrics")
        return float(next(line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")))

    async def served_by(self, model: str = "gpt-4") -> str:
        """The model server that a chat completion with this x-model-id reaches; empty where it reaches none."""
        return await self.cluster.run(
            *("curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%header{x-served-by}"),
            *("--resolve", f"{HTTP_HOST}:443:{self.address}", "-H", f"x-model-id: {model}"),
            *("-H", "content-type: application/json", "-d", _CHAT_BODY.decode(), f"https://{HTTP_HOST}{CHAT}"),
        )


def kill(pod: str, program: str) -> list[int]:
    """SIGKILL to those processes of a pod whose command line has this word, as when the kernel wants for memory. They have
    ended when it returns: until a process is gone its sockets still take connections, and nobody answers those."""
    killed = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdigit()
                and f"HOSTNAME={pod}".encode() in (entry / "environ").read_bytes().split(b"\0")
                and program.encode() in (entry / "cmdline").read_bytes()
            ):
                process = os.pidfd_open(int(entry.name))
                try:
                    signal.pidfd_send_signal(process, signal.SIGKILL)
                    select.select([process], [], [], _DIES_WITHIN_S)
                finally:
                    os.close(process)
                killed.append(int(entry.name))
    return killed


async def issue_certificates(cluster: Cluster, authority: Authority) -> dict[str, list[str]]:
    """What cert-manager would do now: a Secret for every Certificate. Gives the names that each was asked for."""
    found = json.loads(await cluster.kubectl("get", "certificates", "-A", "-o", "json"))["items"]
    asked = {one["spec"]["secretName"]: list(one["spec"]["dnsNames"]) for one in found}
    secrets = [
        tls_secret(one["metadata"]["namespace"], one["spec"]["secretName"], authority.issue(*one["spec"]["dnsNames"]))
        for one in found
    ]
    if secrets:
        await cluster.kubectl("apply", "-f", "-", stdin="---\n".join(secrets))
    return asked


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gwanmun-installed-") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def specification_installed() -> AsyncIterator[Installed]:
    """A cluster of its own (no other controller may want its class), the chart, the manifests, and certificates."""
    async with Cluster() as cluster:
        with _folder() as folder:
            await cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(_OTHERS_KINDS))
            await cluster.helm(
                *("install", RELEASE, str(CHART), "--namespace", SYSTEM, "--create-namespace"),
                *("--values", str(VALUES), "--wait", "--timeout", "120s"),
            )
            await cluster.kubectl("apply", "--server-side", "-f", "-", stdin=QUICK)
            await cluster.kubectl("apply", "-f", str(EXAMPLE))
            await cluster.kubectl("apply", "--server-side", "-f", "-", stdin=model_servers())
            authority = Authority()

            async def asked() -> bool:
                return len(await issue_certificates(cluster, authority)) == 2

            await cluster.eventually("certificates are asked for", asked, within=30)
            address = await _programmed(cluster)
            world = Installed(cluster, authority, address, folder)
            for service, spec in SERVERS.items():
                await world.rolled_out(service.namespace, spec.name)
            await world.rolled_out(GATEWAY.namespace, FLEET)

            async def serves() -> bool:
                return await world.served_by() == "vllm-gpt4"

            await cluster.eventually("the Gateway answers", serves, within=30)
            yield world


async def _programmed(cluster: Cluster) -> str:
    async def programmed() -> str:
        status = (await cluster.get("gateway", GATEWAY.name, GATEWAY.namespace)).get("status") or {}
        states = {one["type"]: one["status"] for one in status.get("conditions") or ()}
        if states.get("Programmed") != "True" or not status.get("addresses"):
            raise ClusterError(json.dumps(status.get("conditions")))
        return str(status["addresses"][0]["value"])

    address: str = await cluster.eventually("the Gateway is programmed", programmed, within=60)
    return address
