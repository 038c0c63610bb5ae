"""An endpoint picker: scripted by the tests beside it, and a program of its own for pods of the test cluster.

It behaves as the protocol's reference does: it answers the request's headers when it has read the whole body, gives bodies back
piece by piece, and says on the answer which endpoint it was told has served.

    python -m tests.envoy.picker NAME PORT...    picks from the addresses that DNS has for the name, each with all the ports
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import grpc
import trustme

from gwanmun.protos import Message, pb

SELECTION = "test-epp-endpoint-selection"
"""The request's header in which a test says what the picker is to pick: addresses, or addresses with ports."""

SERVED = "x-conformance-test-served-endpoint"
"""The answer's header in which the picker says which endpoint has served as far as it was told."""

PICKED = "x-gateway-destination-endpoint"
_LOOKS_EVERY_S = 0.2
Mood = Literal["picks", "silent", "sheds", "picks nothing", "fails"]


@dataclass
class Picker:
    """`addresses` are what it picks from, in turn, where the request does not say; `says` is said whatever it does. `heard` is
    what it was told, one list of messages for each request."""

    addresses: tuple[str, ...] = ()
    port: int = 0
    host: str = "127.0.0.1"
    tls: bool = True
    mood: Mood = "picks"
    says: str | None = None
    heard: list[list[Any]] = field(default_factory=list)
    _server: Any = None
    _turn: int = 0

    async def start(self) -> None:
        self._server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=pb("envoy.service.ext_proc.v3.ProcessingRequest").FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        service = grpc.method_handlers_generic_handler("envoy.service.ext_proc.v3.ExternalProcessor", {"Process": handler})
        self._server.add_generic_rpc_handlers((service,))
        address = f"{self.host}:{self.port}"
        if self.tls:
            own = trustme.CA().issue_cert("picker.example")  # nobody has heard of this authority
            key, chain = own.private_key_pem.bytes(), b"".join(blob.bytes() for blob in own.cert_chain_pems)
            self.port = self._server.add_secure_port(address, grpc.ssl_server_credentials([(key, chain)]))
        else:
            self.port = self._server.add_insecure_port(address)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(None)

    async def _process(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Message]:
        messages: list[Any] = []
        self.heard.append(messages)
        headers: dict[str, str] = {}
        body = b""
        async for request in requests:
            messages.append(request)
            kind = request.WhichOneof("request")
            if self.mood == "fails":
                await context.abort(grpc.StatusCode.INTERNAL, "no mood")
            if self.mood == "silent":
                continue
            part = getattr(request, kind)
            match kind:
                case "request_headers":
                    headers = {one.key: (one.raw_value or one.value.encode()).decode() for one in part.headers.headers}
                    if part.end_of_stream:
                        yield self._answer(headers)
                case "request_body":
                    body += part.body
                    if part.end_of_stream:
                        for answer in self._answers(headers, body):
                            yield answer
                case "response_headers":
                    yield _edited("response_headers", {SERVED: _served(request)})
                case "response_body":
                    yield _piece("response_body", part.body, part.end_of_stream)
                case "request_trailers" | "response_trailers":
                    yield pb("envoy.service.ext_proc.v3.ProcessingResponse")(**{kind: {}})

    def _answers(self, headers: dict[str, str], body: bytes) -> Iterable[Message]:
        answer = self._answer(headers)
        yield answer
        if answer.WhichOneof("response") == "immediate_response":
            return
        for start in range(0, max(1, len(body)), 60_000):
            yield _piece("request_body", body[start : start + 60_000], start + 60_000 >= len(body))

    def _answer(self, headers: dict[str, str]) -> Any:
        if self.mood == "sheds":
            immediate = {"status": {"code": "TooManyRequests"}, "body": b"busy"}
            return pb("envoy.service.ext_proc.v3.ProcessingResponse")(immediate_response=immediate)
        if self.mood == "picks nothing":
            return _edited("request_headers", {})
        picked = self.says or self._picked(headers.get(SELECTION))
        return _edited("request_headers", {PICKED: picked}, {"envoy.lb": {PICKED: picked}})

    def _picked(self, wanted: str | None) -> str:
        if wanted is None:
            self._turn += 1
            return self.addresses[self._turn % len(self.addresses)]
        found = [one for text in wanted.split(",") for one in self.addresses if text in (one, one.rpartition(":")[0])]
        self._turn += 1
        start = self._turn % max(1, len(found))
        return ",".join([*found[start:], *found[:start]]) or "127.255.255.1:1"

    @property
    def kinds(self) -> list[str]:
        """What it was told of its last request, in order."""
        return [message.WhichOneof("request") for message in self.heard[-1]]


def _served(request: Any) -> str:
    found = request.metadata_context.filter_metadata
    return str(dict(found["envoy.lb"])[f"{PICKED}-served"]) if f"{PICKED}-served" in found["envoy.lb"] else "not told"


def _edited(kind: str, headers: dict[str, str], metadata: dict[str, Any] | None = None) -> Message:
    edits = [{"header": {"key": key, "raw_value": value.encode()}} for key, value in headers.items()]
    response = {"header_mutation": {"set_headers": edits}, "clear_route_cache": True}
    more = {"dynamic_metadata": metadata} if metadata is not None else {}
    return pb("envoy.service.ext_proc.v3.ProcessingResponse")(**{kind: {"response": response}}, **more)


def _piece(kind: str, body: bytes, end: bool) -> Message:
    streamed = {"body_mutation": {"streamed_response": {"body": body, "end_of_stream": end}}}
    return pb("envoy.service.ext_proc.v3.ProcessingResponse")(**{kind: {"response": streamed}})


async def _follow(picker: Picker, name: str, ports: list[int]) -> None:
    """Pick from those whom a headless Service has. It listens when there are some, so that a ready picker can pick."""
    loop = asyncio.get_running_loop()
    while True:
        with contextlib.suppress(socket.gaierror):  # nobody is ready
            found = await loop.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
            members = sorted({str(address[0]) for *_, address in found})
            started = bool(picker.addresses)
            picker.addresses = tuple(f"{member}:{port}" for member in members for port in ports)
            if not started:
                await picker.start()
        await asyncio.sleep(_LOOKS_EVERY_S)


if __name__ == "__main__":
    asyncio.run(_follow(Picker(port=9002, host="0.0.0.0"), sys.argv[1], [int(port) for port in sys.argv[2:]]))
