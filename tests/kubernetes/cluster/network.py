"""The cluster's network: one bridge and subnet per zone, routed through the cluster's own network namespace.

    10.100.0.1      the cluster's host side: API server, and whatever is run by `exec`; pods reach it by this address
    10.101-3.0.0/16 pods of zones a, b, c; .0.1 and up are the nodes, pods start at .1.1
    10.96.0.0/16    ClusterIPs: every one is local to the namespace, `services` listens on them
    10.98.0.0/16    LoadBalancer addresses, likewise

A pod's network lives as long as the descriptor that the agent holds, so a crash leaves nothing behind. What crosses zones is
always forwarded from one bridge to another, which is the place to count or delay it.
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from .namespaces import CLONE_NEWNET, loopback_up, setns, unshare

HOST_ADDRESS = "10.100.0.1"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
LOAD_BALANCER_RANGE = "10.98.0.0/16"
ZONES = ("zone-a", "zone-b", "zone-c")


@dataclass(frozen=True)
class Node:
    """One node: a name, a zone and an address; all nodes are played by one agent."""

    name: str
    zone: str
    address: str


def nodes(count: int) -> tuple[Node, ...]:
    """`count` nodes dealt out over the three zones: zone-a-0, zone-b-0, zone-c-0, zone-a-1, ..."""
    return tuple(Node(f"{ZONES[i % 3]}-{i // 3}", ZONES[i % 3], f"10.{101 + i % 3}.0.{1 + i // 3}") for i in range(count))


def subnet(zone: str) -> str:
    """The subnet of a zone's nodes and pods."""
    return f"10.{101 + ZONES.index(zone)}.0.0/16"


def pod_address(zone: str, number: int) -> str:
    """The address of the `number`th pod of a zone, counted from 0."""
    return f"10.{101 + ZONES.index(zone)}.{1 + number // 250}.{1 + number % 250}"


def set_up(cluster_nodes: tuple[Node, ...]) -> None:
    """Furnishes the calling process's fresh network namespace. CalledProcessError says which `ip` command failed."""
    loopback_up()
    commands = [f"addr add {HOST_ADDRESS}/32 dev lo"]
    commands += [f"route add local {subnet} dev lo" for subnet in (SERVICE_RANGE, LOAD_BALANCER_RANGE)]
    for zone in ZONES:
        commands += [f"link add {zone} type bridge", f"link set {zone} up"]
    commands += [f"addr add {node.address}/16 dev {node.zone}" for node in cluster_nodes]
    _ip(commands)
    for name, value in (("ip_forward", "1"), ("ip_unprivileged_port_start", "0"), ("conf/all/rp_filter", "0")):
        with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
            file.write(value)


def own_descriptor(number: int) -> str:
    """The path by which another process opens this process's descriptor. /proc is the machine's, getpid() the cluster's."""
    return f"/proc/{os.readlink('/proc/self')}/fd/{number}"


class PodNetworks:
    """Makes pods' network namespaces. Owns one thread, because a thread that made a namespace sits inside it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._made = 0

    def make(self, *, zone: str, address: str) -> int:
        """A namespace with `eth0` at `address` on the zone's bridge; blocks some 10 ms; close the descriptor to remove it."""
        return self._thread.submit(self._make, zone, address).result()

    def _make(self, zone: str, address: str) -> int:
        self._made += 1
        outside = f"pod{self._made}"
        gateway = nodes(len(ZONES))[ZONES.index(zone)].address
        unshare(CLONE_NEWNET)
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        loopback_up()
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w") as file:  # as container runtimes do for pods
            file.write("0")
        _ip(
            [
                f"link add eth0 type veth peer name {outside} netns {own_descriptor(self._home)}",
                f"addr add {address}/16 dev eth0",
                "link set eth0 up",
                f"route add default via {gateway}",
            ]
        )
        setns(f"/proc/self/fd/{self._home}", CLONE_NEWNET)
        _ip([f"link set {outside} master {zone} up"])
        return descriptor


def _ip(commands: list[str]) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
