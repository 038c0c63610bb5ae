"""vLLM's API as its clients see it."""

import base64
import json
import re
import struct
from typing import Any

import httpx
import openai
import pytest

from gwanmun.sim.server import SimServer
from gwanmun.sim.spec import SimSpec
from sim.conftest import Serve

SPEC = SimSpec(name="a", models=("gpt-4", "gpt-4-turbo"), adapters=("sql-lora",), zone="zone-1")
LONG = "word " * 3000


def chat(text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4", "messages": [{"role": "user", "content": text}], **more}


def sample(page: str, name: str, **labels: str) -> float:
    """The value of the one sample of that name whose labels include these."""
    found = [
        float(line.rsplit(" ", 1)[1])
        for line in page.splitlines()
        if re.match(re.escape(name) + r"[{ ]", line) and all(f'{key}="{value}"' in line for key, value in labels.items())
    ]
    assert len(found) == 1, (name, found)
    return found[0]


async def metrics(client: httpx.AsyncClient, server: SimServer) -> str:
    return (await client.get(f"{server.url}/metrics")).text


@pytest.fixture
async def server(serve: Serve) -> SimServer:
    return await serve(SPEC)


def sdk(server: SimServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def test_the_openai_client_talks_to_it(server: SimServer) -> None:
    async with sdk(server) as client:
        answer = await client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "안녕"}])
        assert answer.choices[0].message.content == 'Hello from a (model gpt-4). You said: "안녕".'
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 5
        legacy = await client.completions.create(model="gpt-4-turbo", prompt=["one", "two"], max_tokens=4)
        assert [choice.text for choice in legacy.choices] == ["Hello from a (mode"] * 2
        assert legacy.choices[1].finish_reason == "length"
        models = [model.id async for model in client.models.list()]
        assert models == ["gpt-4", "gpt-4-turbo", "sql-lora"]
        vectors = await client.embeddings.create(model="gpt-4", input=["one", "two"])
        assert len(vectors.data) == 2
        assert sum(value**2 for value in vectors.data[0].embedding) == pytest.approx(1.0, abs=1e-5)


async def test_the_openai_client_streams_from_it(server: SimServer) -> None:
    async with sdk(server) as client:
        stream = await client.chat.completions.create(
            model="gpt-4",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == 'Hello from a (model gpt-4). You said: "hi".'
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(chunks) - 2


async def test_every_answer_says_who_gave_it(server: SimServer, http: httpx.AsyncClient) -> None:
    for path in ("/health", "/v1/models", "/nowhere"):
        answer = await http.get(server.url + path)
        assert answer.headers["x-served-by"] == "a"
        assert answer.headers["x-served-zone"] == "zone-1"


async def test_what_shapes_the_answer(server: SimServer, http: httpx.AsyncClient) -> None:
    async def ask(**more: Any) -> dict[str, Any]:
        answer = await http.post(f"{server.url}/v1/chat/completions", json=chat(**more))
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    assert (await ask(max_tokens=2))["choices"][0]["message"]["content"] == "Hello from"
    assert (await ask(max_completion_tokens=1))["choices"][0]["finish_reason"] == "length"
    assert (await ask(max_tokens=77, ignore_eos=True))["usage"]["completion_tokens"] == 77
    stopped = (await ask(stop=["(model"]))["choices"][0]
    assert (stopped["message"]["content"], stopped["stop_reason"]) == ("Hello from a ", "(model")
    several = await ask(n=3, tools=[{"type": "function"}], temperature=0.5)
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2]
    assert several["usage"]["prompt_tokens"] == stopped_prompt_tokens(await ask())
    parts = await ask(messages=[{"role": "user", "content": [{"type": "text", "text": "in parts"}]}])
    assert "in parts" in parts["choices"][0]["message"]["content"]
    adapted = await ask(model="sql-lora")
    assert adapted["model"] == "sql-lora"


def stopped_prompt_tokens(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["prompt_tokens"])


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "words"),
    [
        ("/v1/chat/completions", chat() | {"model": "nope"}, 404, "NotFoundError", "The model `nope` does not exist."),
        ("/v1/chat/completions", {"model": "gpt-4"}, 400, "Bad Request", "messages"),
        ("/v1/chat/completions", chat(max_tokens="x"), 400, "Bad Request", "$.max_tokens"),
        ("/v1/chat/completions", chat(max_tokens=0), 400, "BadRequestError", "max_tokens"),
        ("/v1/chat/completions", chat(n=0), 400, "BadRequestError", "n must"),
        ("/v1/chat/completions", chat("word " * 40_000), 400, "BadRequestError", "maximum context length"),
        ("/v1/completions", {"model": "gpt-4", "prompt": []}, 400, "BadRequestError", "prompt"),
        ("/v1/nowhere", {}, 404, "NotFoundError", "Not Found"),
        ("/v1/models", {}, 405, "MethodNotAllowedError", "Method Not Allowed"),
        ("/detokenize", {"tokens": [-1]}, 400, "BadRequestError", "-1"),
    ],
)
async def test_errors_have_vllms_shape(
    server: SimServer, http: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, kind: str, words: str
) -> None:
    answer = await http.post(server.url + path, json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == (kind, status)
    assert words in error["message"]


async def test_broken_json_is_refused(server: SimServer, http: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for broken in (b"{", b"\xff\xfe", b"[]", b""):
        answer = await http.post(f"{server.url}/v1/chat/completions", content=broken, headers=headers)
        assert answer.status_code == 400, broken
    wrong_type = await http.post(f"{server.url}/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert wrong_type.status_code == 400


async def test_tokens_there_and_back(server: SimServer, http: httpx.AsyncClient) -> None:
    tokens = (await http.post(f"{server.url}/tokenize", json={"model": "gpt-4", "prompt": "Hello 세계"})).json()
    assert tokens["count"] == len(tokens["tokens"]) == 4
    back = await http.post(f"{server.url}/detokenize", json={"model": "gpt-4", "tokens": tokens["tokens"]})
    assert back.json() == {"prompt": "Hello 세계"}
    assert (await http.get(f"{server.url}/version")).json() == {"version": "0.33.0"}


async def test_base64_embeddings_are_the_same_numbers(server: SimServer, http: httpx.AsyncClient) -> None:
    ask = {"model": "gpt-4", "input": "x", "dimensions": 4}
    plain = (await http.post(f"{server.url}/v1/embeddings", json=ask)).json()
    packed = (await http.post(f"{server.url}/v1/embeddings", json={**ask, "encoding_format": "base64"})).json()
    numbers = struct.unpack("<4f", base64.b64decode(packed["data"][0]["embedding"]))
    assert numbers == pytest.approx(plain["data"][0]["embedding"])


async def test_metrics_move_while_it_generates(server: SimServer, http: httpx.AsyncClient) -> None:
    idle = await metrics(http, server)
    assert sample(idle, "vllm:num_requests_running", model_name="gpt-4", engine="0") == 0
    ask = chat(LONG, stream=True, max_tokens=20_000, ignore_eos=True, model="sql-lora")
    async with http.stream("POST", f"{server.url}/v1/chat/completions", json=ask) as answer:
        lines = answer.aiter_lines()
        while '"content":"Hello"' not in await anext(lines):
            pass
        busy = await metrics(http, server)
        load = (await http.get(f"{server.url}/load")).json()
    assert sample(busy, "vllm:num_requests_running") == 1
    assert sample(busy, "vllm:kv_cache_usage_perc") > 0.03
    assert sample(busy, "vllm:time_to_first_token_seconds_count") == 1
    assert sample(busy, "vllm:lora_requests_info", running_lora_adapters="sql-lora", max_lora="4") > 1e9
    assert load == {"server_load": 1}
    assert (await http.get(f"{server.url}/sim/requests")).json()["requests"][0]["model"] == "sql-lora"


async def test_a_client_that_leaves_cancels_its_work(server: SimServer, http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await http.post(
            f"{server.url}/v1/chat/completions",
            json=chat(max_tokens=20_000, ignore_eos=True),
            timeout=0.05,
        )
    page = await metrics(http, server)
    while sample(page, "vllm:num_requests_running"):
        page = await metrics(http, server)
    assert sample(page, "vllm:request_success_total", finished_reason="abort") == 1
    assert sample(page, "vllm:e2e_request_latency_seconds_count") == 0
    assert server.cancelled == 1
    assert server.requests[-1].outcome == "cancelled"


async def test_a_second_identical_prompt_is_faster(serve: Serve, http: httpx.AsyncClient) -> None:
    server = await serve(SimSpec(name="h", models=("gpt-4",), profile="8b-h100", speed=50.0))
    cached: list[int] = []
    waits: list[float] = []
    for _ in range(2):
        answer = await http.post(f"{server.url}/v1/chat/completions", json=chat(LONG, max_tokens=1))
        cached.append(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
        waits.append(sample(await metrics(http, server), "vllm:time_to_first_token_seconds_sum"))
    assert cached[0] == 0
    assert cached[1] > 2900
    assert waits[0] > 5 * (waits[1] - waits[0])
    page = await metrics(http, server)
    assert sample(page, "vllm:prefix_cache_hits_total") == cached[1]
    assert sample(page, "vllm:prefix_cache_queries_total") == sample(page, "vllm:prompt_tokens_total")


async def test_a_conversation_finds_its_own_answer_in_the_cache(server: SimServer, http: httpx.AsyncClient) -> None:
    messages = [{"role": "user", "content": LONG}]
    first = (await http.post(f"{server.url}/v1/chat/completions", json=chat() | {"messages": messages})).json()
    messages += [first["choices"][0]["message"], {"role": "user", "content": "and then?"}]
    second = (await http.post(f"{server.url}/v1/chat/completions", json=chat() | {"messages": messages})).json()
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > first["usage"]["prompt_tokens"]


async def test_metrics_have_vllms_names(server: SimServer, http: httpx.AsyncClient) -> None:
    page = await metrics(http, server)
    for name in (
        "vllm:num_requests_waiting",
        "vllm:num_preemptions_total",
        "vllm:generation_tokens_total",
        "vllm:e2e_request_latency_seconds_sum",
        "vllm:request_queue_time_seconds_count",
        "vllm:inter_token_latency_seconds_count",
        "vllm:request_time_per_output_token_seconds_count",
        "vllm:iteration_tokens_total_count",
    ):
        sample(page, name, model_name="gpt-4", engine="0")
    assert sample(page, "vllm:cache_config_info", block_size="16", num_gpu_blocks="4096", kv_cache_size_tokens="65536") == 1
    assert sample(page, "process_start_time_seconds") > 1.7e9


async def test_the_load_report_is_given_when_asked_for(server: SimServer, http: httpx.AsyncClient) -> None:
    url = f"{server.url}/v1/chat/completions"
    report = (await http.post(url, json=chat(), headers={"endpoint-load-metrics-format": "JSON"})).headers
    kind, _, text = report["endpoint-load-metrics"].partition(" ")
    assert kind == "JSON"
    assert json.loads(text)["named_metrics"]["num_requests_waiting"] == 0.0
    assert "endpoint-load-metrics" not in (await http.post(url, json=chat())).headers


async def test_a_plain_openai_server_has_no_vllm_routes(serve: Serve, http: httpx.AsyncClient) -> None:
    server = await serve(SimSpec(name="o", engine="openai", models=("gpt-4",)))
    assert (await http.post(f"{server.url}/v1/chat/completions", json=chat())).status_code == 200
    assert (await http.get(f"{server.url}/metrics")).status_code == 404
