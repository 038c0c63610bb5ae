"""Questions to this machine about ports: which need privileges, which are free, and who has those that are not."""

import contextlib
import errno
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from gwanmun.infra.ports import Place, Transport, Unusable

_CAP_NET_BIND_SERVICE = 1 << 10
_TCP_LISTEN = "0A"


def first_unprivileged_port() -> int:
    """The lowest port that an Envoy started by us can bind to: 0 if it can bind to any."""
    if sys.platform != "linux":
        return 0 if os.geteuid() == 0 else 1024
    status = Path("/proc/self/status").read_text()
    capabilities = {name: int(mask, 16) for name, mask in re.findall(r"^(Cap\w+):\s*([0-9a-f]+)$", status, re.MULTILINE)}
    # What a process can do its child can do only where it is root, or was given the capability for its children too.
    inherited = capabilities["CapEff"] if os.geteuid() == 0 else capabilities["CapAmb"]
    if inherited & _CAP_NET_BIND_SERVICE:
        return 0
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def unusable(place: Place) -> Unusable | None:
    """Why nothing can be bound there now; None if something can. Binds for an instant and does not listen.

    Envoy would not tell: it binds with SO_REUSEPORT, and so shares a port with any other such process of the same user.
    """
    family = socket.AF_INET6 if ipaddress.ip_address(place.address).version == 6 else socket.AF_INET
    kind = socket.SOCK_STREAM if place.transport == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as probe:
            if place.transport == "tcp":
                # Closed connections that the kernel still remembers are no obstacle; listening sockets are.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((place.address, place.port))
    except OSError as error:
        return _explain(place, error)
    return None


def _explain(place: Place, error: OSError) -> Unusable:
    where = f"{place.transport} port {place.port} of {place.address}"
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(place)
        return Unusable(
            "PortUnavailable", f"{where} is in use by {owner or 'another process'}; end that one, or give --address"
        )
    if error.errno == errno.EACCES:
        return Unusable("PortUnavailable", f"{where} needs privileges that we lack")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return Unusable("AddressNotUsable", f"{place.address} is not an address of this machine")
    return Unusable("PortUnavailable", f"{where} cannot be bound: {error.strerror}")


def port_owner(place: Place) -> str | None:
    """The process that has this port, as far as we can see, such as "process 4711 (nginx)"."""
    inodes = set(_socket_inodes(place.port, place.transport))
    if not inodes:
        return None
    for entry in Path("/proc").glob("[0-9]*"):
        # Processes come and go, and the files of other users' are not ours to see.
        with contextlib.suppress(OSError):
            if any(os.readlink(file) in inodes for file in (entry / "fd").iterdir()):
                return f"process {entry.name} ({(entry / 'comm').read_text().strip()})"
    return None


def _socket_inodes(port: int, transport: Transport) -> Iterator[str]:
    """Sockets bound to the port, as the links in /proc/*/fd name them. Nothing on systems without /proc."""
    for table in (transport, f"{transport}6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                _, local, _, state, *rest = line.split()
                if int(local.rpartition(":")[2], 16) == port and (transport == "udp" or state == _TCP_LISTEN):
                    yield f"socket:[{rest[5]}]"
