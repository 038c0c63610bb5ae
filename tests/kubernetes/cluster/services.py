"""Services: ClusterIPs, LoadBalancer addresses and cluster DNS, all in user space (`python -m ...services STATE`).

Every ClusterIP and LoadBalancer address is local to the cluster's network namespace; this process listens on each port of
each Service and passes connections and datagrams on to a ready endpoint, another one where connecting fails. The source
address that endpoints see is therefore the cluster's, as with externalTrafficPolicy: Cluster. A proxy that wants speed,
zones or session affinity dials endpoints itself. LoadBalancer addresses are handed out in order, or as
spec.loadBalancerIP asks; one outside 10.98.0.0/16 stays pending.

Deliberately absent: node ports, session affinity, traffic distribution and traffic policies.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import random
import sys
from pathlib import Path

import httpx

from . import dns, forward
from .kube import MERGE, ApiError, Key, Kube, Object, Table, key_of
from .network import DNS_ADDRESS, LOAD_BALANCER_RANGE

_POOL = ipaddress.ip_network(LOAD_BALANCER_RANGE)
_Listener = tuple[str, int, str]


class Services:
    """Listeners for all Services. `run` never returns."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._services = Table(kube, "/api/v1/services", self._changed)
        self._slices = Table(kube, "/apis/discovery.k8s.io/v1/endpointslices", self._slice_changed)
        self._by_service: dict[Key, dict[str, Object]] = {}
        self._listeners: dict[_Listener, forward.Listener] = {}
        self._dirty = asyncio.Event()
        self._dirty.set()

    async def run(self) -> None:
        """Follows Services and EndpointSlices, and answers DNS."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run())
            group.create_task(self._slices.run())
            await dns.serve(DNS_ADDRESS, self._resolve)
            while True:
                await self._dirty.wait()
                self._dirty.clear()
                await self._reconcile()

    def _changed(self, _old: Object | None, _new: Object | None) -> None:
        self._dirty.set()

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        """No listener changes: they ask for endpoints at each connection."""
        item = new or old or {}
        namespace, name = key_of(item)
        service = (item["metadata"].get("labels") or {}).get("kubernetes.io/service-name", "")
        slices = self._by_service.setdefault((namespace, service), {})
        slices.pop(name, None)
        if new is not None:
            slices[name] = new

    async def _reconcile(self) -> None:
        await self._assign_addresses()
        wanted: dict[_Listener, tuple[Key, str]] = {}
        for key, service in self._services.objects.items():
            for address in _addresses(service):
                for port in service["spec"].get("ports") or []:
                    wanted[address, port["port"], port.get("protocol", "TCP")] = (key, port.get("name", ""))
        for gone in self._listeners.keys() - wanted.keys():
            self._listeners.pop(gone).close()
        for listener, (key, port_name) in wanted.items():
            if listener not in self._listeners:
                await self._listen(listener)
            if listener in self._listeners:
                self._listeners[listener].aim(functools.partial(self._endpoints, key, port_name))

    async def _listen(self, listener: _Listener) -> None:
        address, port, protocol = listener
        kinds = {"TCP": forward.listen_tcp, "UDP": forward.listen_udp}
        if protocol not in kinds or (address, protocol) == (DNS_ADDRESS, "UDP"):
            return
        try:
            self._listeners[listener] = await kinds[protocol](address, port)
        except OSError as error:
            print(f"cannot listen on {address}:{port}/{protocol}: {error}", flush=True)

    def _endpoints(self, service: Key, port_name: str) -> list[forward.Endpoint]:
        """In random order; those that are terminating but still serve only where no other is left, as kube-proxy does."""
        ready: list[forward.Endpoint] = []
        ending: list[forward.Endpoint] = []
        for item in self._by_service.get(service, {}).values():
            ports = [port["port"] for port in item.get("ports") or [] if (port.get("name") or "") == port_name]
            for endpoint in item.get("endpoints") or []:
                conditions = endpoint.get("conditions") or {}
                chosen = ready if conditions.get("ready", True) else ending if conditions.get("serving") else None
                if chosen is not None and ports:
                    chosen.append((endpoint["addresses"][0], ports[0]))
        found = ready or ending
        random.shuffle(found)
        return found

    async def _assign_addresses(self) -> None:
        used = {address for service in self._services.objects.values() for address in _ingress(service)}
        free = (str(host) for host in _POOL.hosts() if str(host) not in used)
        for key, service in list(self._services.objects.items()):
            wanted = service["spec"].get("type") == "LoadBalancer" and not service["spec"].get("loadBalancerClass")
            if wanted == bool(_ingress(service)):
                continue
            address = service["spec"].get("loadBalancerIP") or next(free)
            if wanted and (ipaddress.ip_address(address) not in _POOL or address in used):
                continue
            used.add(address)
            ingress = [{"ip": address, "ipMode": "VIP"}] if wanted else None
            status = {"status": {"loadBalancer": {"ingress": ingress}}}
            with contextlib.suppress(ApiError):  # it changed or went in between: its next event comes here again
                path = f"/api/v1/namespaces/{key[0]}/services/{key[1]}/status"
                await self._kube.call("PATCH", path, status, kind=MERGE)

    def _resolve(self, name: str) -> list[str] | None:
        """A records of SERVICE.NAMESPACE.svc.cluster.local: the ClusterIP, or of a headless Service its ready endpoints."""
        labels = name.lower().rstrip(".").split(".")
        if labels[2:] != ["svc", "cluster", "local"]:
            return None
        key = (labels[1], labels[0])
        service = self._services.objects.get(key)
        if service is None:
            return None
        if service["spec"].get("clusterIP") not in (None, "", "None"):
            return [service["spec"]["clusterIP"]]
        names = [port.get("name", "") for port in service["spec"].get("ports") or []] or [""]
        return sorted({address for port in names for address, _ in self._endpoints(key, port)})


def _addresses(service: Object) -> list[str]:
    cluster = service["spec"].get("clusterIP")
    return [*([cluster] if cluster not in (None, "", "None") else []), *_ingress(service)]


def _ingress(service: Object) -> list[str]:
    ingress = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
    return [entry["ip"] for entry in ingress if "ip" in entry]


async def main() -> None:
    """Runs the Services of the cluster whose state folder is the first argument."""
    async with Kube(Path(sys.argv[1]) / "pki", "agent") as kube:
        while True:
            try:
                await Services(kube).run()
            except* httpx.TransportError as error:
                print(f"starting over: {error.exceptions[0]!r}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
