"""The gRPC echo server as a client without stubs sees it."""

import json

import grpc
import pytest

from gwanmun.sim.faults import Error
from gwanmun.sim.grpc_echo import SERVING
from gwanmun.sim.spec import SimSpec
from sim.conftest import Serve


def unary(channel: grpc.aio.Channel, method: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    return channel.unary_unary(method, request_serializer=None, response_deserializer=None)


def streaming(channel: grpc.aio.Channel, method: str) -> "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]":
    return channel.unary_stream(method, request_serializer=None, response_deserializer=None)


async def test_any_method_is_echoed(serve: Serve) -> None:
    server = await serve(SimSpec(name="g", engine="grpc"))
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = unary(channel, "/inference.Inference/Predict")(b"payload", metadata=(("x-tenant", "a"),))
        assert await call == b"payload"
        assert dict(await call.initial_metadata())["x-served-by"] == "g"
        streamed = streaming(channel, "/inference.Inference/PredictStream")(b"piece")
        assert [message async for message in streamed] == [b"piece"] * 3
        described = json.loads(await unary(channel, "/inference.Inference/Describe")(b"1234"))
    assert described["method"] == "/inference.Inference/Describe"
    assert described["bytes"] == 4
    method, metadata = server.grpc_calls()[0]
    assert method == "/inference.Inference/Predict"
    assert metadata["x-tenant"] == "a"


async def test_health_and_faults(serve: Serve) -> None:
    server = await serve(SimSpec(name="g", engine="grpc", faults=(Error(message="gone", count=1),)))
    async with grpc.aio.insecure_channel(server.address) as channel:
        check = unary(channel, "/grpc.health.v1.Health/Check")
        assert await check(b"") == SERVING
        watch = streaming(channel, "/grpc.health.v1.Health/Watch")(b"")
        assert await watch.read() == SERVING
        watch.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unary(channel, "/a.B/C")(b"")
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert refused.value.details() == "gone"
        assert await unary(channel, "/a.B/C")(b"x") == b"x"


async def test_a_taken_port_is_an_error(serve: Serve) -> None:
    server = await serve(SimSpec(name="g", engine="grpc"))
    with pytest.raises(OSError, match="cannot listen"):
        await serve(SimSpec(name="h", engine="grpc", port=server.port))
