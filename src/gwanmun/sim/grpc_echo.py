"""A gRPC server without generated stubs: it echoes any method of any service, and answers the standard health service.

A method whose name ends in `Stream` sends every message it receives three times; one named `Describe` answers with JSON bytes
that say what arrived; all others send each message back. Health is `grpc.health.v1.Health`, encoded by hand (one enum).
Faults that make sense here: errors (as UNAVAILABLE, 429 as RESOURCE_EXHAUSTED), latency, hang; others are ignored.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import grpc
import msgspec

from gwanmun.sim.faults import Error, FaultPlan, Hang, Latency, RateLimited
from gwanmun.sim.spec import SimSpec

SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}: field 1, varint 1
HEALTH_SERVICE = "grpc.health.v1.Health"
STREAM_COPIES = 3


if TYPE_CHECKING:  # only the stubs know that these are generic
    _Handler = grpc.GenericRpcHandler[bytes, bytes]
else:
    _Handler = grpc.GenericRpcHandler


class GrpcEcho(_Handler):
    """Start it with `start`; `plan` is asked on every call, so faults may change while it runs."""

    def __init__(self, spec: SimSpec, *, plan: Callable[[], FaultPlan], draw: Callable[[], float]) -> None:
        self._spec = spec
        self._plan = plan
        self._draw = draw
        self._server: grpc.aio.Server | None = None
        self.calls: deque[tuple[str, dict[str, str]]] = deque(maxlen=1000)

    async def start(self) -> int:
        """Listen; the port that was bound. Raises OSError when it is taken."""
        server = grpc.aio.server(handlers=(self,), options=(("grpc.so_reuseport", 0),))
        address = f"{self._spec.host}:{self._spec.port}"
        try:
            port = self._bind(server, address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        await server.start()
        self._server = server
        return port

    async def stop(self, grace: float | None) -> None:
        """Stop listening; calls under way get `grace` seconds, or none."""
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Every method has a handler."""
        method = details.method
        metadata = {name: str(value) for name, value in details.invocation_metadata}
        self.calls.append((method, metadata))

        async def serve(
            messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
        ) -> AsyncIterator[bytes]:
            await context.send_initial_metadata((("x-served-by", self._spec.name), ("x-echo-method", method)))
            if not method.startswith(f"/{HEALTH_SERVICE}/"):
                await self._suffer(method, context)
            async for message in messages:
                if method == f"/{HEALTH_SERVICE}/Check":
                    yield SERVING
                elif method == f"/{HEALTH_SERVICE}/Watch":
                    yield SERVING
                    await _forever()
                elif method.endswith("/Describe"):
                    yield msgspec.json.encode(
                        {"served_by": self._spec.name, "method": method, "metadata": metadata, "bytes": len(message)}
                    )
                else:
                    for _ in range(STREAM_COPIES if method.endswith("Stream") else 1):
                        yield message

        # One shape serves all: on the wire a unary call is a stream of one message in each direction.
        return grpc.stream_stream_rpc_method_handler(serve)

    def _bind(self, server: grpc.aio.Server, address: str) -> int:
        tls = self._spec.tls
        if tls is None:
            return int(server.add_insecure_port(address))
        credentials = grpc.ssl_server_credentials(
            [(tls.key.read_bytes(), tls.certificate.read_bytes())],
            root_certificates=tls.client_ca.read_bytes() if tls.client_ca is not None else None,
            require_client_auth=tls.client_ca is not None,
        )
        return int(server.add_secure_port(address, credentials))

    async def _suffer(self, method: str, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        for fault in self._plan().chosen(method, is_model_work=True, draw=self._draw):
            match fault:
                case Latency():
                    await asyncio.sleep(fault.seconds + fault.jitter * self._draw())
                case Hang():
                    await _forever()
                case RateLimited():
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rate limited by the simulator")
                case Error():
                    exhausted = fault.status == 429
                    code = grpc.StatusCode.RESOURCE_EXHAUSTED if exhausted else grpc.StatusCode.UNAVAILABLE
                    await context.abort(code, fault.message)
                case _:
                    continue


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()
