"""TGI's API as its clients see it."""

import json
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from gwanmun.sim.faults import HangMidStream
from gwanmun.sim.server import SimServer
from gwanmun.sim.spec import SimSpec
from sim.conftest import Serve
from sim.test_vllm import sample

SPEC = SimSpec(name="t", engine="tgi", models=("mixtral-8x7b",))
TEXT = 'Hello from t (model mixtral-8x7b). You said: "hi".'


@pytest.fixture
async def server(serve: Serve) -> SimServer:
    return await serve(SPEC)


def events(text: str) -> list[Any]:
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:{")]


async def test_generate(server: SimServer, http: httpx.AsyncClient) -> None:
    ask = {"inputs": "hi", "parameters": {"details": True}}
    answer = await http.post(f"{server.url}/generate", json=ask)
    assert answer.json()["generated_text"] == TEXT
    assert answer.json()["details"]["finish_reason"] == "eos_token"
    count = answer.json()["details"]["generated_tokens"]
    assert "".join(token["text"] for token in answer.json()["details"]["tokens"]) == TEXT
    assert answer.headers["x-generated-tokens"] == str(count)
    assert answer.headers["x-prompt-tokens"] == "1"
    assert {"x-queue-time", "x-inference-time", "x-time-per-token", "x-total-time", "x-compute-type"} <= answer.headers.keys()
    short = {"inputs": "hi", "parameters": {"max_new_tokens": 2, "return_full_text": True}}
    assert (await http.post(server.url, json=short)).json() == [{"generated_text": "hiHello from"}]


@pytest.mark.parametrize(("path", "extra"), [("/generate_stream", {}), ("/", {"stream": True})])
async def test_generate_stream(server: SimServer, http: httpx.AsyncClient, path: str, extra: dict[str, Any]) -> None:
    answer = await http.post(server.url + path, json={"inputs": "hi", "parameters": {"details": True}, **extra})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    assert "".join(event["token"]["text"] for event in found) == TEXT
    assert [event["index"] for event in found] == list(range(1, len(found) + 1))
    assert [event["generated_text"] for event in found[-2:]] == [None, TEXT]
    assert found[-1]["details"]["generated_tokens"] == len(found)


async def test_the_openai_client_talks_to_it(server: SimServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        answer = await client.chat.completions.create(model="any", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == TEXT
        assert answer.model == "mixtral-8x7b"
        stream = await client.chat.completions.create(
            model="any",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == TEXT
        assert chunks[-1].usage is not None
        legacy = await client.completions.create(model="any", prompt="hi", max_tokens=2)
        assert legacy.choices[0].text == "Hello from"
        assert [model.id async for model in client.models.list()] == ["mixtral-8x7b"]


async def test_info_health_tokens(server: SimServer, http: httpx.AsyncClient) -> None:
    info = (await http.get(f"{server.url}/info")).json()
    assert (info["model_id"], info["max_concurrent_requests"]) == ("mixtral-8x7b", 128)
    assert (await http.get(f"{server.url}/health")).status_code == 200
    tokens = (await http.post(f"{server.url}/tokenize", json={"inputs": "Hello you"})).json()
    assert [(token["text"], token["start"], token["stop"]) for token in tokens] == [("Hello", 0, 5), (" you", 5, 9)]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "Failed to parse"),
        (b"{}", 422, "inputs"),
        (b'{"inputs": ""}', 422, "cannot be empty"),
        (b'{"inputs": "x", "parameters": {"max_new_tokens": 0}}', 422, "strictly positive"),
        (b'{"inputs": "x", "parameters": {"max_new_tokens": 99999}}', 422, "must be <= 32768"),
    ],
)
async def test_errors_have_tgis_shape(server: SimServer, http: httpx.AsyncClient, body: bytes, status: int, words: str) -> None:
    headers = {"content-type": "application/json"}
    answer = await http.post(f"{server.url}/generate", content=body, headers=headers)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert answer.json()["error_type"] == "validation"


async def test_too_many_requests_are_refused(serve: Serve, http: httpx.AsyncClient) -> None:
    server = await serve(SimSpec(name="t", engine="tgi", max_concurrent=1, faults=(HangMidStream(after=1, count=1),)))
    async with http.stream("POST", f"{server.url}/generate_stream", json={"inputs": "hi"}) as held:
        await anext(held.aiter_lines())
        refused = await http.post(f"{server.url}/generate", json={"inputs": "hi"})
        streamed = await http.post(f"{server.url}/generate_stream", json={"inputs": "hi"})
    assert refused.status_code == 429
    assert refused.json() == {"error": "Model is overloaded", "error_type": "overloaded"}
    assert streamed.status_code == 200
    assert events(streamed.text) == [refused.json()]
    page = (await http.get(f"{server.url}/metrics")).text
    assert sample(page, "tgi_request_failure", err="overloaded") == 2


async def test_metrics_move_while_it_generates(serve: Serve, http: httpx.AsyncClient) -> None:
    server = await serve(replace(SPEC, speed=0.05))
    ask = {"inputs": "word " * 3000, "parameters": {"max_new_tokens": 200}}
    async with http.stream("POST", f"{server.url}/generate_stream", json=ask) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        busy = (await http.get(f"{server.url}/metrics")).text
        async for _ in lines:
            pass
    idle = (await http.get(f"{server.url}/metrics")).text
    assert sample(busy, "tgi_batch_current_size") == 1
    assert sample(busy, "tgi_queue_size") == 0
    assert sample(busy, "tgi_batch_current_max_tokens") > 3000
    assert sample(busy, "tgi_batch_max_total_tokens") == 65536
    assert sample(idle, "tgi_batch_current_size") == 0
    assert sample(idle, "tgi_request_count") == 1
    assert sample(idle, "tgi_request_success") == 1
    assert sample(idle, "tgi_request_duration_count") == 1
    assert sample(idle, "tgi_batch_forward_duration_count", method="decode") > 10
