"""One pod from its binding to a node until it is gone: volumes, network, init containers, containers, status, end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from .container import Container, Launch
from .environment import NotYet, World, container_environment, expand
from .images import Image, NoSuchImage, command_line, find_image
from .kube import STRATEGIC, ApiError, Kube, Object
from .logs import Log
from .network import API_SERVICE_ADDRESS, DNS_ADDRESS, Node, PodNetworks, own_descriptor
from .volumes import Volumes


@dataclass(frozen=True)
class Host:
    """What all pods share."""

    kube: Kube
    world: World
    images: Mapping[str, Image]
    networks: PodNetworks
    state: Path
    root: Path


class Pod:
    """Runs one pod on `node` at `address`. The agent keeps `definition` current and calls `poke` when anything changed."""

    def __init__(self, host: Host, definition: Object, node: Node, address: str) -> None:
        self.definition = definition
        self.uid: str = definition["metadata"]["uid"]
        self.gone = False
        self._host = host
        self._node = node
        self._address = address
        self._poke = asyncio.Event()
        self._status_poke = asyncio.Event()
        self._folder = host.state / "pods" / self.uid
        self._volumes = Volumes(definition, self._folder / "volumes", host.kube, time.time)
        self._start = _now()
        self._initialized = False
        self._reported: Object | None = None
        self._init = [self._container(c, init=True) for c in definition["spec"].get("initContainers") or []]
        self._main = [self._container(c, init=False) for c in definition["spec"]["containers"]]

    def log(self, container: str) -> Log | None:
        """The log of one of its containers, None for a container that it lacks."""
        return next((c.log for c in self._init + self._main if c.name == container), None)

    def poke(self) -> None:
        """Something that the pod is or refers to has changed."""
        self._poke.set()
        self._status_poke.set()

    async def run(self) -> None:
        """Until the pod object is gone. Afterwards nothing of it is left but its logs."""
        living = asyncio.create_task(self._live())
        reporting = asyncio.create_task(self._report_for_ever())
        try:
            while not self.gone and "deletionTimestamp" not in self.definition["metadata"]:
                await self._poked()
            await self._stop(living)
        finally:
            for container in self._init + self._main:
                container.kill()
            living.cancel()
            reporting.cancel()
            await asyncio.gather(living, reporting, return_exceptions=True)
        if not self.gone:
            await self._report()
            await self._finalise()

    async def _poked(self) -> None:
        self._poke.clear()
        with contextlib.suppress(TimeoutError):  # tokens are renewed without anything having changed
            await asyncio.wait_for(self._poke.wait(), 10)

    async def _live(self) -> None:
        await self._until_materialised()
        network = await asyncio.to_thread(self._host.networks.make, zone=self._node.zone, address=self._address)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_volumes_current())
                await self._run_init(group, own_descriptor(network))
                self._initialized = True
                self.poke()
                for container in self._main:
                    group.create_task(container.run(network=own_descriptor(network), address=self._address))
        finally:
            os.close(network)

    async def _run_init(self, group: asyncio.TaskGroup, network: str) -> None:
        for container in self._init:
            running = group.create_task(container.run(network=network, address=self._address))
            if container.definition.get("restartPolicy") != "Always":
                await running
                if container.exit_code != 0:  # the policy is Never: the pod has failed, and its containers never start
                    await asyncio.Event().wait()
            else:
                await container.first_start.wait()

    async def _until_materialised(self) -> None:
        while True:
            try:
                await self._volumes.refresh(self._seen(), self._host.world)
                for container in self._init + self._main:
                    self._launch(container.definition)
            except (NotYet, NoSuchImage, ApiError, httpx.TransportError) as error:
                reason = "ErrImagePull" if isinstance(error, NoSuchImage) else "CreateContainerConfigError"
                for container in self._main:
                    container.wait_because(reason, str(error))
                await asyncio.sleep(0.1)
            else:
                return

    async def _keep_volumes_current(self) -> None:
        while True:
            await asyncio.sleep(1)
            with contextlib.suppress(NotYet, ApiError, httpx.TransportError):  # what was deleted stays as it was
                await self._volumes.refresh(self._seen(), self._host.world)
            if all(container.finished for container in self._main):
                return

    def _container(self, definition: Object, *, init: bool) -> Container:
        metadata, spec = self.definition["metadata"], self.definition["spec"]
        policy = spec.get("restartPolicy", "Always")
        if init:
            policy = definition.get("restartPolicy") or ("Never" if policy == "Never" else "OnFailure")
        log = f"{metadata['namespace']}_{metadata['name']}_{definition['name']}_{self.uid[:8]}.log"
        return Container(
            definition,
            pod=self.definition,
            policy=policy,
            folder=self._folder / definition["name"],
            log=Log(self._host.state / "logs" / "pods" / log),
            launch=lambda: self._launch(definition),
            changed=self.poke,
        )

    def _seen(self) -> Object:
        """The pod as its containers are to see it, with the addresses that its status may not have yet."""
        addresses = {"podIP": self._address, "hostIP": self._node.address}
        return self.definition | {"status": self.definition.get("status", {}) | addresses}

    def _launch(self, container: Object) -> Launch:
        image = find_image(self._host.images, container["image"])
        own = container_environment(self._seen(), container, self._host.world)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": "/",
            "HOSTNAME": self.definition["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": API_SERVICE_ADDRESS,
            "KUBERNETES_SERVICE_PORT": "443",
            "KUBERNETES_SERVICE_PORT_HTTPS": "443",
            **(image.environment or {}),
            **own,
        }
        return Launch(
            command=[expand(word, environment) for word in command_line(container, image)],
            environment=environment,
            directory=container.get("workingDir") or str(self._host.root),
            mounts=self._mounts(container),
        )

    def _mounts(self, container: Object) -> list[dict[str, Any]]:
        mounts = [{"source": str(path), "target": f"/etc/{path.name}", "readOnly": False} for path in self._write_etc()]
        for mount in container.get("volumeMounts") or []:
            source = self._volumes.path(mount["name"])
            volume = next(v for v in self.definition["spec"]["volumes"] if v["name"] == mount["name"])
            if mount.get("subPath"):
                source = Path(os.path.realpath(source / mount["subPath"]))
                if "emptyDir" in volume:
                    source.mkdir(parents=True, exist_ok=True)
            writable = ("emptyDir" in volume or "hostPath" in volume) and not mount.get("readOnly")
            mounts.append({"source": str(source), "target": mount["mountPath"].rstrip("/"), "readOnly": not writable})
        return mounts

    def _write_etc(self) -> list[Path]:
        """resolv.conf and hosts, as every pod gets its own."""
        spec, namespace = self.definition["spec"], self.definition["metadata"]["namespace"]
        folder = self._folder / "etc"
        folder.mkdir(parents=True, exist_ok=True)
        search = f"{namespace}.svc.cluster.local svc.cluster.local cluster.local"
        (folder / "resolv.conf").write_text(f"nameserver {DNS_ADDRESS}\nsearch {search}\noptions ndots:5\n")
        aliases = [f"{alias['ip']} {' '.join(alias['hostnames'])}" for alias in spec.get("hostAliases") or []]
        own = f"{self._address} {spec.get('hostname') or self.definition['metadata']['name']}"
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", own, *aliases, ""]))
        return [folder / "resolv.conf", folder / "hosts"]

    async def _stop(self, living: asyncio.Task[None]) -> None:
        grace = self.definition["metadata"].get("deletionGracePeriodSeconds", 30)
        if self.gone:  # deleted by force: there is no one left to be graceful to
            grace = 0
        await asyncio.gather(*(container.stop(grace) for container in self._main))
        await asyncio.gather(*(container.stop(0) for container in reversed(self._init)))
        if all(container.finished or not container.first_start.is_set() for container in self._main):
            living.cancel()

    async def _report_for_ever(self) -> None:
        """The API server being away only delays a status."""
        while True:
            self._status_poke.clear()
            try:
                await self._report()
            except (ApiError, httpx.TransportError):
                await asyncio.sleep(0.2)
            else:
                await self._status_poke.wait()

    async def _report(self) -> None:
        status = self._status()
        if status == self._reported:
            return
        metadata = self.definition["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        try:
            await self._host.kube.call(
                "PATCH", path, {"metadata": {"uid": self.uid}, "status": _stamped(status)}, kind=STRATEGIC
            )
        except ApiError as error:
            if error.code not in (404, 409):  # gone, or another pod has its name: the watch will say so
                raise
        self._reported = status

    def _status(self) -> Object:
        """All of the status that is ours, without the times of transitions."""
        containers = [container.status() for container in self._main]
        ready = bool(containers) and all(container["ready"] for container in containers)
        gates = [gate["conditionType"] for gate in self.definition["spec"].get("readinessGates") or []]
        held = {c["type"]: c["status"] for c in self.definition.get("status", {}).get("conditions") or []}
        open_gates = all(held.get(gate) == "True" for gate in gates)
        return {
            "phase": self._phase(),
            "hostIP": self._node.address,
            "hostIPs": [{"ip": self._node.address}],
            "podIP": self._address,
            "podIPs": [{"ip": self._address}],
            "startTime": self._start,
            "conditions": [
                {"type": "Initialized", "status": str(self._initialized)},
                {"type": "ContainersReady", "status": str(ready)},
                {"type": "Ready", "status": str(ready and open_gates)},
            ],
            "initContainerStatuses": [container.status() for container in self._init],
            "containerStatuses": containers,
        }

    def _phase(self) -> str:
        if any(container.finished and container.exit_code != 0 for container in self._init):
            return "Failed"
        if all(container.finished for container in self._main) and all(c.exit_code is not None for c in self._main):
            return "Succeeded" if all(container.exit_code == 0 for container in self._main) else "Failed"
        return "Running" if any(container.first_start.is_set() for container in self._main) else "Pending"

    async def _finalise(self) -> None:
        metadata = self.definition["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        while not self.gone:
            try:
                await self._host.kube.call(
                    "DELETE",
                    path,
                    {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}},
                )
            except ApiError as error:
                if error.code in (404, 409):
                    return
                await asyncio.sleep(0.2)
            except httpx.TransportError:
                await asyncio.sleep(0.2)
            else:
                return


def _stamped(status: Object) -> Object:
    return status | {"conditions": [condition | {"lastTransitionTime": _now()} for condition in status["conditions"]]}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
