"""`Probe`: a client that reaches the gateway of this machine under the host names of its manifests, with real TLS."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx

_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is the beginning of what came back; `served_by` the simulated server that says it answered."""

    status: int
    served_by: str
    text: str
    seconds: float
    location: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """`ports` maps listener ports to where they are bound on 127.0.0.1."""

    ports: Mapping[int, int]
    authority: Path
    address: str = "127.0.0.1"

    async def http(
        self,
        scheme: str,
        host: str,
        port: int,
        path: str,
        *,
        headers: Mapping[str, str] = {},
        body: Mapping[str, object] | None = None,
    ) -> Answer:
        """One request, POST where there is a body; a stream of events is read to its end."""
        import ssl

        context = ssl.create_default_context(cafile=str(self.authority))
        url = f"{scheme}://{self.address}:{self.ports[port]}{path}"
        started = time.monotonic()
        async with httpx.AsyncClient(verify=context, timeout=_TIMEOUT_S, trust_env=False) as client:
            response = await client.request(
                "POST" if body is not None else "GET",
                url,
                headers={"host": host, **headers},
                json=body,
                extensions={"sni_hostname": host} if scheme == "https" else {},
            )
        return Answer(
            status=response.status_code,
            served_by=response.headers.get("x-served-by", ""),
            text=_gist(response),
            seconds=time.monotonic() - started,
            location=response.headers.get("location", ""),
        )

    async def grpc(self, host: str, port: int, method: str, message: bytes = b"hello") -> Answer:
        """One unary call with raw bytes."""
        credentials = grpc.ssl_channel_credentials(self.authority.read_bytes())
        target = f"{self.address}:{self.ports[port]}"
        options = (("grpc.ssl_target_name_override", host), ("grpc.default_authority", host))
        started = time.monotonic()
        async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
            call = channel.unary_unary(method, bytes, bytes)(message, timeout=_TIMEOUT_S)
            try:
                reply = await call
            except grpc.aio.AioRpcError as error:
                return Answer(0, "", f"{error.code().name}: {error.details()}", time.monotonic() - started)
            metadata = {str(key): str(value) for key, value in await call.initial_metadata()}
        text = bytes(reply).decode(errors="replace")
        return Answer(200, metadata.get("x-served-by", ""), text[:60], time.monotonic() - started)


def _gist(response: httpx.Response) -> str:
    """What the answer says, in a few words."""
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        return f"{response.text.count('data:')} events"
    if kind.startswith("application/json"):
        return _said(response.json())[:60]
    return response.headers.get("location", "") or response.text[:60]


def _said(body: Any) -> str:
    match body:
        case {"choices": [{"message": {"content": str(text)}}, *_]} | {"choices": [{"text": str(text)}, *_]}:
            return text
        case {"data": [{"embedding": list(vector)}, *_]}:
            return f"a vector of {len(vector)} numbers"
        case {"error": {"message": str(text)}}:
            return text
        case _:
            return str(body)
