"""The node agent: it is the kubelet of every node of the cluster (`python -m ...agent STATE`).

One process for all nodes, because a node here is only a name, a zone and an address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import yaml

from . import logs
from .environment import World
from .images import decode_images
from .kube import MERGE, ApiError, Key, Kube, Object, Table, key_of
from .network import Node, PodNetworks, nodes, pod_address
from .pod import Host, Pod

_PACKAGE = __package__ or ""
_ROOT = Path(__file__).resolve().parents[_PACKAGE.count(".") + 1]
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
_RESOURCES = {"cpu": "64", "memory": "64Gi", "ephemeral-storage": "64Gi", "pods": "1000"}


class Agent:
    """Owns all pods of the cluster. `run` until SIGTERM, which ends every pod within two seconds."""

    def __init__(self, state: Path, kube: Kube) -> None:
        options = json.loads((state / "options.json").read_text())
        self._nodes = {node.name: node for node in nodes(options["nodes"])}
        self._kube = kube
        self._state = state
        self._pods: dict[str, Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._addresses: dict[str, list[int]] = {}
        self._next_address: dict[str, int] = {}
        secrets = Table(kube, "/api/v1/secrets", self._referent_changed)
        config_maps = Table(kube, "/api/v1/configmaps", self._referent_changed)
        self._before_pods = (secrets, config_maps)
        self._table = Table(kube, "/api/v1/pods", self._pod_changed)
        mapping = yaml.safe_load(Path(__file__).with_name("images.yaml").read_text()) | options["images"]
        places = {
            "programs": options["programs"],
            "scripts": str(Path(sys.executable).parent),
            "python": sys.executable,
            "root": str(_ROOT),
        }
        self._host = Host(
            kube=kube,
            world=World(secrets.objects, config_maps.objects),
            images=decode_images(mapping, places),
            networks=PodNetworks(),
            state=state,
            root=_ROOT,
        )

    async def run(self) -> None:
        """Registers the nodes, then plays kubelet."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        server = await logs.serve(self._state / "pki", self._log)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(table.run()) for table in self._before_pods]
            for table in self._before_pods:
                await table.filled.wait()
            tasks.append(group.create_task(self._table.run()))
            for node in self._nodes.values():
                await self._register(node)
            await stop.wait()
            server.close()
            for task in tasks:
                task.cancel()
        for pod_task in self._tasks.values():
            pod_task.cancel()  # its `finally` kills the processes
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _register(self, node: Node) -> None:
        labels = {
            "topology.kubernetes.io/zone": node.zone,
            "topology.kubernetes.io/region": "test",
            "kubernetes.io/hostname": node.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _ARCHITECTURE,
        }
        with contextlib.suppress(ApiError):  # it is there already when the agent comes back
            await self._kube.call(
                "POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": labels}}
            )
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played by the node agent"}
        status = {
            "addresses": [{"type": "InternalIP", "address": node.address}, {"type": "Hostname", "address": node.name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": logs.PORT}},
            "capacity": _RESOURCES,
            "allocatable": _RESOURCES,
            "conditions": [ready],
            "nodeInfo": _node_info(),
        }
        await self._kube.call("PATCH", f"/api/v1/nodes/{node.name}/status", {"status": status}, kind=MERGE)
        # Admission taints every new node as not ready; nobody else would take the taint away again.
        await self._kube.call("PATCH", f"/api/v1/nodes/{node.name}", {"spec": {"taints": None}}, kind=MERGE)

    def _referent_changed(self, old: Object | None, new: Object | None) -> None:
        changed = key_of(new or old or {})
        for pod in self._pods.values():
            if pod.definition["metadata"]["namespace"] == changed[0]:
                pod.poke()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            gone = self._pods.get(old["metadata"]["uid"])
            if gone is not None:
                gone.gone = True
                gone.poke()
        if new is None or new["spec"].get("nodeName") not in self._nodes:
            return
        uid = new["metadata"]["uid"]
        if uid in self._pods:
            self._pods[uid].definition = new
            self._pods[uid].poke()
        elif new.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            self._adopt(new)

    def _adopt(self, definition: Object) -> None:
        node = self._nodes[definition["spec"]["nodeName"]]
        number = self._take_address(node.zone)
        pod = Pod(self._host, definition, node, pod_address(node.zone, number))
        self._pods[pod.uid] = pod
        self._tasks[pod.uid] = asyncio.create_task(self._run(pod, node.zone, number))

    async def _run(self, pod: Pod, zone: str, number: int) -> None:
        try:
            await pod.run()
        finally:
            del self._pods[pod.uid], self._tasks[pod.uid]
            self._addresses[zone].append(number)
            shutil.rmtree(self._state / "pods" / pod.uid, ignore_errors=True)

    def _take_address(self, zone: str) -> int:
        """The address that has been free for longest, so that late packets for a dead pod rarely meet a new one."""
        free = self._addresses.setdefault(zone, [])
        if len(free) > 100:
            return free.pop(0)
        number = self._next_address.get(zone, 0)
        self._next_address[zone] = number + 1
        return number

    def _log(self, namespace: str, name: str, container: str) -> logs.Log | None:
        key: Key = (namespace, name)
        pods = [pod for pod in self._pods.values() if key_of(pod.definition) == key]
        return pods[-1].log(container) if pods else None


def _node_info() -> Object:
    unknown = dict.fromkeys(
        ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "kubeProxyVersion"), "processes, not containers"
    )
    versions = {"containerRuntimeVersion": "process://1", "kubeletVersion": "v1.36.3"}
    return unknown | versions | {"operatingSystem": "linux", "architecture": _ARCHITECTURE}


async def main() -> None:
    """Runs the agent of the cluster whose state folder is the first argument."""
    state = Path(sys.argv[1])
    async with Kube(state / "pki", "agent") as kube:
        await Agent(state, kube).run()


if __name__ == "__main__":
    asyncio.run(main())
