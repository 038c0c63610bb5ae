"""Readiness, liveness and startup probes: one attempt each, as a coroutine that says whether it succeeded.

Deliberately absent: exec probes (a pod that has one says so in its status) and gRPC health, which counts as a TCP probe.
"""

from __future__ import annotations

import asyncio
import ssl

from .environment import NotYet
from .kube import Object

_ANY_CERTIFICATE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # as the kubelet: a probe asks for life, not for identity
_ANY_CERTIFICATE.check_hostname = False
_ANY_CERTIFICATE.verify_mode = ssl.CERT_NONE


def port_number(container: Object, port: int | str) -> int:
    """A port by number or by its name in the container. NotYet for a name that it lacks."""
    if isinstance(port, int) or port.isdigit():
        return int(port)
    for declared in container.get("ports") or []:
        if declared.get("name") == port:
            return int(declared["containerPort"])
    raise NotYet(f"container {container['name']!r} has no port named {port!r}")


async def probe(container: Object, action: Object, address: str) -> bool:
    """One attempt at `action` (a probe or a lifecycle hook) against the pod's address, within its timeoutSeconds."""
    try:
        async with asyncio.timeout(action.get("timeoutSeconds", 1)):
            if "httpGet" in action:
                return await _http(container, action["httpGet"], address)
            port = action["tcpSocket"]["port"] if "tcpSocket" in action else action["grpc"]["port"]
            _, writer = await asyncio.open_connection(address, port_number(container, port))
            writer.close()
            return True
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return False


def supported(action: Object) -> bool:
    """Whether this is a probe that `probe` can do."""
    return any(kind in action for kind in ("httpGet", "tcpSocket", "grpc"))


async def _http(container: Object, action: Object, address: str) -> bool:
    host, port = action.get("host") or address, port_number(container, action["port"])
    context = _ANY_CERTIFICATE if action.get("scheme") == "HTTPS" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
        headers |= {header["name"]: header["value"] for header in action.get("httpHeaders") or []}
        lines = [f"GET {action.get('path') or '/'} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        status_line = await reader.readline()
        return 200 <= int(status_line.split()[1]) < 400 if status_line else False
    finally:
        writer.close()
