"""What the module promises to clients, seen through a real Envoy."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import subprocess
import zlib
from pathlib import Path

import pytest

from .conftest import ENVOY, MIB, Exchange, Gateway, Reply, framed, head, listener

pytestmark = [pytest.mark.native, pytest.mark.asyncio(loop_scope="session")]

CHAT = b'{"messages": [{"role": "user", "content": "say \\"model\\": \\u00e9 \\\\"}], "model": "gpt-4", "n": 1}'
FORM_TYPE = "multipart/form-data; boundary=xYz"
FORM = (
    b'--xYz\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"RIFF\r\n--xY\r\n\x00\xff\r\n"
    b'--xYz\r\nContent-Disposition: form-data; name="model"\r\n\r\nllama\r\n--xYz--\r\n'
)


def check_served(reply: Reply, *, by: str, body: bytes, model: str | None = None) -> None:
    """The upstream `by` got exactly this body, and the model as header; a request that is served costs no metadata."""
    assert reply.status == 200, reply
    assert reply.seen["upstream"] == by
    assert reply.seen["sha256"] == hashlib.sha256(body).hexdigest()
    if model is not None:
        assert reply.seen["headers"]["x-model-id"] == model
        assert reply.seen["metadata"] is None


def check_no_route(reply: Reply, metadata: dict[str, object] | None) -> None:
    """No route matched, and this is what an answer can be made of."""
    assert reply.status == 404, reply
    assert reply.seen["metadata"] == metadata


def check_refused(reply: Reply, *, status: int, code: str) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    error = reply.seen["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, code)
    assert error["message"]


async def test_the_model_in_the_body_chooses_the_route(gateway: Gateway) -> None:
    check_served(await gateway.send(CHAT), by="gpt", body=CHAT, model="gpt-4")
    body = b'{"model":"llama","stream":true}'
    reply = await gateway.send(body, content_type="")
    check_served(reply, by="llama", body=body)
    assert reply.seen["metadata"] == {"stream": True}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("body", "content_type", "by"), [(CHAT, "application/json", "gpt"), (FORM, FORM_TYPE, "llama")])
async def test_bodies_cut_at_every_byte(gateway: Gateway, body: bytes, content_type: str, by: str, chunked: bool) -> None:
    exchanges = [await Exchange.open(gateway) for _ in range(1, len(body))]
    before, sent = gateway.received_bytes(), 0
    for cut, exchange in enumerate(exchanges, start=1):
        first = head((body,), content_type=content_type, chunked=chunked) + framed(body[:cut], chunked=chunked)
        sent += len(first)
        await exchange.write(first)
    # Only when Envoy has read every first half do the second halves leave, so the module gets two pieces.
    await gateway.until_received(before + sent)
    for cut, exchange in enumerate(exchanges, start=1):
        await exchange.write(framed(body[cut:], chunked=chunked) + (b"0\r\n\r\n" if chunked else b""))
    model = {"gpt": "gpt-4", "llama": "llama"}[by]
    for exchange in exchanges:
        check_served(await exchange.reply(), by=by, body=body, model=model)


async def test_one_byte_at_a_time(gateway: Gateway) -> None:
    reply = await gateway.send(*(bytes([byte]) for byte in CHAT), chunked=True)
    check_served(reply, by="gpt", body=CHAT, model="gpt-4")


async def test_a_body_may_end_with_trailers(gateway: Gateway) -> None:
    exchange = await Exchange.open(gateway)
    await exchange.write(head((CHAT,), chunked=True) + framed(CHAT, chunked=True) + b"0\r\nx-checksum: 1\r\n\r\n")
    check_served(await exchange.reply(), by="gpt", body=CHAT, model="gpt-4")


async def test_an_explicit_header_wins_and_the_body_is_not_held(gateway: Gateway) -> None:
    exchange = await Exchange.open(gateway)
    gateway.upstreams["llama"].saw_head.clear()
    await exchange.write(head((CHAT,), x_model_id="llama") + CHAT[:9])
    await asyncio.wait_for(gateway.upstreams["llama"].saw_head.wait(), timeout=10)
    await exchange.write(CHAT[9:])
    check_served(await exchange.reply(), by="llama", body=CHAT, model="llama")


async def test_an_explicit_model_that_no_route_serves_is_named_before_the_body_arrives(gateway: Gateway) -> None:
    exchange = await Exchange.open(gateway)
    await exchange.write(head((CHAT,), x_model_id="gpt-5"))
    check_no_route(await exchange.reply(), {"ai": True})


async def test_an_empty_header_is_no_explicit_model(gateway: Gateway) -> None:
    request = head((CHAT,)).replace(b"content-type", b"x-model-id:\r\ncontent-type")
    exchange = await Exchange.open(gateway)
    await exchange.write(request + CHAT)
    check_served(await exchange.reply(), by="gpt", body=CHAT, model="gpt-4")


@pytest.mark.parametrize(
    "body",
    [
        b'{"mod\\u0065l": "gpt-4"}',
        b'{"model": "gpt\\u002d4"}',
        b'{"x": {"model": "llama"}, "y": ["model", {"model": 1}], "model":"gpt-4"}',
        b' \r\n\t{"a":"\\\\","model":"gpt-4"} ',
    ],
)
async def test_only_the_top_level_counts_and_escapes_are_undone(gateway: Gateway, body: bytes) -> None:
    check_served(await gateway.send(body), by="gpt", body=body, model="gpt-4")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "the request body is empty"),
        (b'{"model": "gpt-4"', "the request body is not valid JSON (unexpected end at byte 17)"),
        (b'{"model": "gpt-4"}}', "the request body is not valid JSON (unexpected '}' at byte 18)"),
        (b"{'model': 1}", "the request body is not valid JSON (unexpected ''' at byte 1)"),
        (b"\xff\xfe{\0", "the request body is not valid JSON (unexpected 0xff at byte 0)"),
        (b'{"messages": []}', 'the request body has no top-level "model"'),
        (b'[{"model": "gpt-4"}]', 'the request body has no top-level "model"'),
        (b'{"model": "gpt-4", "model": "gpt-4"}', '"model" appears twice in the request body'),
        (b'{"model": "gpt-4", "mode\\u006c": "llama"}', '"model" appears twice in the request body'),
        (b'{"model": {"name": "gpt-4"}}', '"model" in the request body is not a string'),
        (b'{"model": "gpt-4\\r\\nx-admin: 1"}', '"model" in the request body contains a control character'),
        (b'{"model": "%b"}' % (b"m" * 1025), '"model" in the request body is longer than 1024 bytes'),
    ],
)
async def test_a_body_without_a_usable_model_goes_where_else_the_routes_say(
    gateway: Gateway, body: bytes, problem: str
) -> None:
    check_no_route(await gateway.send(body), {"ai": True, "body_problem": problem})
    reply = await gateway.send(body, path="/any")
    check_served(reply, by="llama", body=body)
    assert reply.seen["metadata"] == {"body_problem": problem}
    assert "x-model-id" not in reply.seen["headers"]


async def test_a_model_that_no_route_serves_is_named(gateway: Gateway) -> None:
    check_no_route(await gateway.send(b'{"model": "gpt-5"}'), {"ai": True})


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        (FORM.replace(b'"model"', b'"voice"'), 'the request body has no form field "model"'),
        (FORM[:-8] + FORM[92:], '"model" appears twice in the request body'),
        (FORM[:-4], f"the request body is not a valid multipart form (unexpected end at byte {len(FORM) - 4})"),
    ],
)
async def test_forms_without_a_usable_model(gateway: Gateway, form: bytes, problem: str) -> None:
    check_no_route(await gateway.send(form, content_type=FORM_TYPE), {"ai": True, "body_problem": problem})


async def test_what_is_no_inference_request_is_left_alone(gateway: Gateway) -> None:
    for content_type in ("text/csv", "application/grpc+json", "application/octet-stream"):
        reply = await gateway.send(CHAT, path="/any", content_type=content_type)
        check_served(reply, by="llama", body=CHAT)
        assert reply.seen["metadata"] is None
    check_no_route(await gateway.send(b"plain text", content_type=""), None)


async def test_long_prompts(gateway: Gateway) -> None:
    code = 'if a["b"] == \'\\t\':\n\tprint("\\\\")\n' * 7000
    for content in ("prose " * 37_000, code, "모델 " * 30_000):
        body = json.dumps({"messages": [{"content": content}], "model": "gpt-4"}, ensure_ascii=False).encode()
        assert len(body) > 200_000
        check_served(await gateway.send(body), by="gpt", body=body, model="gpt-4")
        check_served(await gateway.send(body, chunked=True), by="gpt", body=body, model="gpt-4")


async def test_the_limit_is_the_configured_one(gateway: Gateway) -> None:
    body = b'{"model": "gpt-4", "x": ""}'.ljust(4 * MIB)
    check_served(await gateway.send(body), by="gpt", body=body, model="gpt-4")
    check_refused(await gateway.send(body + b" "), status=413, code="request_too_large")


async def test_too_large_bodies_are_refused_at_once(gateway: Gateway) -> None:
    exchange = await Exchange.open(gateway, "small")
    await exchange.write(head((b"x" * 1001,)))
    check_refused(await exchange.reply(), status=413, code="request_too_large")


@pytest.mark.parametrize("headers", [{}, {"content_type": FORM_TYPE}, {"content_type": ""}])
async def test_too_large_bodies_of_unknown_length_are_refused(gateway: Gateway, headers: dict[str, str]) -> None:
    start = b"--xYz\r\n\r\n" if headers.get("content_type") else b'{"x": "'
    pieces = [start, *[b"x" * 100] * 10]
    reply = await gateway.send(*pieces, listener="small", chunked=True, **headers)
    check_refused(reply, status=413, code="request_too_large")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_not_held_has_no_limit(gateway: Gateway, chunked: bool) -> None:
    body = b'{"x": "'.ljust(9 * MIB, b"x")
    reply = await gateway.send(body, listener="small", chunked=chunked, x_model_id="gpt-4")
    check_served(reply, by="gpt", body=body, model="gpt-4")


async def test_compressed_bodies_are_refused_unless_the_header_says_the_model(gateway: Gateway) -> None:
    check_refused(await gateway.send(b"\x1f\x8b", content_encoding="gzip"), status=415, code="unsupported_content_encoding")
    check_served(await gateway.send(CHAT, content_encoding="identity"), by="gpt", body=CHAT)
    check_served(await gateway.send(b"\x1f\x8b", content_encoding="gzip", x_model_id="gpt-4"), by="gpt", body=b"\x1f\x8b")


@pytest.mark.parametrize("content_type", ["", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"])
async def test_a_content_type_that_was_not_meant_hides_no_model(gateway: Gateway, content_type: str) -> None:
    check_served(await gateway.send(CHAT, content_type=content_type), by="gpt", body=CHAT, model="gpt-4")


async def test_of_two_models_in_headers_the_first_counts_everywhere(gateway: Gateway) -> None:
    for first, second, by in (("gpt-4", "llama", "gpt"), ("nobody", "gpt-4", None)):
        reply = await gateway.send(CHAT, x_model_id=first, X_Model_Id=second)
        if by is None:
            check_no_route(reply, {"ai": True})
        else:
            check_served(reply, by=by, body=CHAT)
            assert reply.seen["headers"]["x-model-id"] == first


async def test_the_shard_is_pythons_crc32_of_the_host(gateway: Gateway) -> None:
    for host in ("chat.example.com", "Chat.Example.COM:8443", "[::1]:80"):
        reply = await gateway.send(CHAT, listener="sharded", path="/any", host=host, x_gwanmun_shard="99")
        plain = "[::1]" if host.startswith("[") else host.partition(":")[0].lower()
        assert reply.seen["headers"]["x-gwanmun-shard"] == str(zlib.crc32(plain.encode()) % 7)
        assert "x-model-id" not in reply.seen["headers"]


async def test_envoy_outlives_fuzzed_bodies(gateway: Gateway) -> None:
    draw = random.Random(7)

    async def one() -> None:
        body = bytearray(draw.choice([CHAT, FORM]))
        for _ in range(draw.randrange(6)):
            body[draw.randrange(len(body))] = draw.choice(b'{}[]":,\\\r\n-0\x00\xff')
        del body[draw.randrange(len(body) * 2) :]
        cut = draw.randrange(len(body) + 1)
        content_type = draw.choice(["application/json", FORM_TYPE, ""])
        reply = await gateway.send(bytes(body[:cut]), bytes(body[cut:]), chunked=draw.random() < 0.5, content_type=content_type)
        assert reply.status in (200, 404)

    for _ in range(40):
        await asyncio.gather(*(one() for _ in range(25)))
    assert gateway.is_alive()


async def test_clients_that_leave_in_mid_body_do_no_harm(gateway: Gateway) -> None:
    for cut in range(1, len(CHAT), 3):
        exchange = await Exchange.open(gateway)
        await exchange.write(head((CHAT,)) + CHAT[:cut])
        exchange.abort()
    check_served(await gateway.send(CHAT), by="gpt", body=CHAT, model="gpt-4")
    assert gateway.is_alive()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"models": 1}', 'unknown field "models"; known are model_header, max_request_bytes, shards'),
        ("{", "configuration is not JSON"),
        ('{"max_request_bytes": "1"}', 'max_request_bytes: "1" is not a number of bytes'),
    ],
)
async def test_a_wrong_configuration_is_refused_with_the_reason(
    module: Path, tmp_path: Path, config: str, message: str
) -> None:
    bootstrap = tmp_path / "envoy.json"
    bootstrap.write_text(json.dumps({"static_resources": {"listeners": [listener("bad", config)]}}))
    process = await asyncio.create_subprocess_exec(ENVOY, "--mode", "validate", "-c", bootstrap, stderr=subprocess.PIPE)
    _, log = await process.communicate()
    assert process.returncode != 0
    assert message in log.decode()
