"""Do the specification's manifests, unchanged, do with real traffic what they say?"""

import ssl

import httpx
import openai
import pytest

from gwanmun.app.demo import GRPC_HOST, HTTP_HOST, REQUESTS, DemoRequest, DemoWorld, send

pytestmark = [pytest.mark.envoy, pytest.mark.native, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.title)
async def test_each_request_is_answered_by_the_server_that_the_manifests_name(world: DemoWorld, request_: DemoRequest) -> None:
    answer = await send(world.probe, request_)
    assert (answer.status, answer.served_by) == (request_.status, request_.answered_by), answer.text


async def test_plain_http_is_sent_to_https(world: DemoWorld) -> None:
    answer = await world.probe.http("http", HTTP_HOST, 80, "/anything")
    assert answer.status == 301
    port = "" if world.ports[443] == 443 else f":{world.ports[443]}"  # mapped where we may not bind to 443
    assert answer.location == f"https://{HTTP_HOST}{port}/anything"


def openai_client(world: DemoWorld) -> openai.AsyncOpenAI:
    """The SDK as it is; only its HTTP client is told where the host name is on this machine."""

    async def name_the_server(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = HTTP_HOST

    tls = ssl.create_default_context(cafile=str(world.authority))
    return openai.AsyncOpenAI(
        base_url=f"https://{world.address}:{world.ports[443]}/v1",
        api_key="none",
        max_retries=0,
        http_client=httpx.AsyncClient(
            verify=tls, headers={"host": HTTP_HOST}, event_hooks={"request": [name_the_server]}, trust_env=False
        ),
    )


@pytest.mark.parametrize(
    ("model", "server"), [("gpt-4", "vllm-gpt4"), ("claude-3", "vllm-claude3"), ("mixtral-8x7b", "tgi-mixtral")]
)
async def test_the_openai_sdk_is_routed_by_its_model(world: DemoWorld, model: str, server: str) -> None:
    async with openai_client(world) as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=8
        )
        assert raw.headers["x-served-by"] == server
        assert raw.parse().choices[0].message.content


async def test_the_openai_sdk_streams(world: DemoWorld) -> None:
    async with openai_client(world) as client:
        stream = await client.chat.completions.create(
            model="claude-3",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    assert stream.response.headers["x-served-by"] == "vllm-claude3"
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 1
    assert chunks[-1].usage is not None


async def test_the_grpc_listener_serves_nothing_but_its_host(world: DemoWorld) -> None:
    answer = await world.probe.http("https", HTTP_HOST, 443, "/inference.Echo/Say")
    assert answer.status == 404
    with pytest.raises((httpx.ConnectError, httpx.ReadError)):  # no listener has that name: the handshake is refused
        await world.probe.http("https", "unknown.example.com", 8443, "/")
    assert (await world.probe.grpc(GRPC_HOST, 8443, "/inference.Echo/Say")).status == 200
