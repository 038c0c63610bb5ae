"""InferencePools and their endpoint pickers, as requests through a real Envoy see them.

The tests that begin with `test_conformance` are the cases of the Gateway API Inference Extension's suite, by the names that
they have there.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from picker import PICKED, SELECTION, SERVED
from pools import GROUP, Pool, route, serving
from proxied import Asked, ask

from gwanmun.explain import Request, explain
from gwanmun.ir import MAX_REQUEST_BYTES

BODY = b'{"model": "conformance-fake-model", "prompt": "Write as if you were a critic: San Francisco"}'
LONG = b'{"model": "conformance-fake-model", "prompt": "' + b"San Francisco " * 15_000 + b'"}'
PRIMARY, SECONDARY = Pool("primary", 1), Pool("secondary", 2, failure_mode="FailOpen")
OK = {"Accepted": (True, "Accepted"), "ResolvedRefs": (True, "ResolvedRefs")}


async def post(
    client: httpx.AsyncClient, path: str = "/", picked: str | None = None, content: bytes | AsyncIterator[bytes] = BODY
) -> Asked:
    headers = {SELECTION: picked} if picked is not None else {}
    return await ask(client, path, "POST", content=content, headers=headers)


async def slowly(content: bytes) -> AsyncIterator[bytes]:
    """In three pieces, far enough apart for a picker to fail between them."""
    third = len(content) // 3
    for piece in (content[:third], content[third : 2 * third], content[2 * third :]):
        yield piece
        await asyncio.sleep(0.05)


# The suite's cases


async def test_conformance_epp_unavailable_fail_open(tmp_path: Path) -> None:
    async with serving(tmp_path, SECONDARY, routes={"r": route("r", "/", "secondary")}) as s, s.client() as client:
        assert (await post(client, picked=SECONDARY.ip(0))).by == "secondary-0"
        await s.pickers["secondary"].stop()
        for content in (BODY, LONG):
            answer = await post(client, picked=SECONDARY.ip(0), content=content)
            assert answer.by.startswith("secondary")
            assert answer.saw["body"].encode() == content


async def test_conformance_gateway_destination_endpoint_served(tmp_path: Path) -> None:
    async with serving(tmp_path, PRIMARY, routes={"r": route("r", "/", "primary")}) as s, s.client() as client:
        for index in range(3):
            answer = await post(client, picked=PRIMARY.ip(index))
            assert answer.by == f"primary-{index}"
            assert answer.response.headers[SERVED] == f"{PRIMARY.ip(index)}:{s.targets[0]}"


@pytest.mark.parametrize("indexes", [(2,), (0, 1), (0, 1, 2)])
async def test_conformance_gateway_following_epp_routing(tmp_path: Path, indexes: tuple[int, ...]) -> None:
    async with serving(tmp_path, PRIMARY, routes={"r": route("r", "/", "primary")}) as s, s.client() as client:
        picked = ",".join(PRIMARY.ip(index) for index in indexes)
        answers = await asyncio.gather(*(post(client, picked=picked) for _ in range(40)))
        assert {answer.by for answer in answers} == {f"primary-{index}" for index in indexes}


async def test_conformance_gateway_following_epp_routing_with_data_parallelism(tmp_path: Path) -> None:
    pool = Pool("ranks", 3, ranks=3)
    async with serving(tmp_path, pool, routes={"r": route("r", "/", "ranks")}) as s, s.client() as client:
        cases = {
            pool.ip(1): {"ranks-1:0", "ranks-1:1", "ranks-1:2"},
            f"{pool.ip(0)},{pool.ip(2)}:{s.targets[1]}": {"ranks-0:0", "ranks-0:1", "ranks-0:2", "ranks-2:1"},
            f"{pool.ip(1)}:{s.targets[0]},{pool.ip(1)}:{s.targets[2]}": {"ranks-1:0", "ranks-1:2"},
        }
        for picked, expected in cases.items():
            answers = [await post(client, picked=picked) for _ in range(20)]
            assert {answer.by for answer in answers} == expected


async def test_conformance_gateway_weighted_across_two_inference_pools(tmp_path: Path) -> None:
    both = route("r", "/", ("primary", 70), ("secondary", 30))
    async with serving(tmp_path, PRIMARY, SECONDARY, routes={"r": both}) as s, s.client() as client:
        picked = ",".join(pool.ip(index) for pool in (PRIMARY, SECONDARY) for index in range(3))
        answers = [await post(client, picked=picked) for _ in range(200)]
        counts = Counter(answer.by.partition("-")[0] for answer in answers)
        assert 110 < counts["primary"] < 170
        assert counts["primary"] == len(s.pickers["primary"].heard)
        assert counts["secondary"] == len(s.pickers["secondary"].heard) == 200 - counts["primary"]


async def test_conformance_httproute_invalid_inferencepool_ref(tmp_path: Path) -> None:
    async with serving(tmp_path, PRIMARY, routes={"r": route("r", "/", "missing")}) as s, s.client() as client:
        assert s.conditions("HTTPRoute", "r") == {"primary": OK | {"ResolvedRefs": (False, "BackendNotFound")}}
        assert (await ask(client)).status == 500


async def test_conformance_httproute_multiple_gateways_different_pools(tmp_path: Path) -> None:
    routes = {"a": route("a", "/", "primary"), "b": route("b", "/", "secondary", parent="second")}
    async with serving(tmp_path, PRIMARY, SECONDARY, routes=routes, gateways=("primary", "second")) as s:
        assert s.conditions("InferencePool", "primary") == {"primary": OK}
        assert s.conditions("InferencePool", "secondary") == {"second": OK}
        async with s.client() as first, s.client("second") as second:
            assert (await ask(first)).by.startswith("primary")
            assert (await ask(second)).by.startswith("secondary")


async def test_conformance_inferencepool_accepted(tmp_path: Path) -> None:
    async with serving(tmp_path, PRIMARY, routes={"r": route("r", "/", "primary")}) as s:
        assert s.conditions("InferencePool", "primary") == {"primary": OK}


async def test_conformance_inferencepool_app_protocol(tmp_path: Path) -> None:
    plain2 = Pool("plain2", 4, app_protocol="kubernetes.io/h2c")
    plain1 = Pool("plain1", 5, app_protocol="http")
    routes = {pool.name: route(pool.name, f"/{pool.name}", pool.name) for pool in (plain1, plain2, PRIMARY)}
    async with serving(tmp_path, plain1, plain2, PRIMARY, routes=routes) as s, s.client() as client:
        for index in range(3):
            assert (await post(client, "/plain1", plain1.ip(index))).by == f"plain1-{index}"
            assert (await post(client, "/primary", PRIMARY.ip(index))).by == f"primary-{index}"
            answer = (await post(client, "/plain2", plain2.ip(index))).response
            assert (answer.status_code, answer.headers["x-name"]) == (200, f"plain2-{index}")
            assert answer.headers[SERVED] == f"{plain2.ip(index)}:{s.targets[0]}"


@pytest.mark.parametrize("port", ["unspecified", "matching", "another"])
async def test_conformance_inferencepool_httproute_port_validation(tmp_path: Path, port: str) -> None:
    refs = {} if port == "unspecified" else {"port": 3000 if port == "matching" else 8888}
    async with serving(tmp_path, PRIMARY, routes={"r": route("r", "/", "primary", **refs)}) as s, s.client() as client:
        assert s.conditions("HTTPRoute", "r") == {"primary": OK}
        assert (await ask(client)).by.startswith("primary")


async def test_conformance_inferencepool_invalid_epp_service(tmp_path: Path) -> None:
    nobody = f"""
apiVersion: {GROUP}/v1
kind: InferencePool
metadata: {{name: nobody, namespace: ai}}
spec:
  selector: {{matchLabels: {{app: primary}}}}
  targetPorts: [{{number: 3000}}]
  endpointPickerRef: {{name: non-existent, port: {{number: 9002}}}}
"""
    async with serving(tmp_path, routes={"r": route("r", "/", "nobody"), "pool": nobody}) as s, s.client() as client:
        found = s.conditions("HTTPRoute", "r")["primary"]
        assert (found["Accepted"], found["ResolvedRefs"]) == ((True, "Accepted"), (False, "BackendNotFound"))
        found = s.conditions("InferencePool", "nobody")["primary"]
        assert found["ResolvedRefs"] == (False, "InvalidExtensionRef")
        assert (await ask(client)).status == 500


async def test_conformance_inferencepool_missing_epp_ref(tmp_path: Path) -> None:
    """Allowed to be refused; here such a pool is served by least request."""
    pool = Pool("plain", 6, picker=False)
    async with serving(tmp_path, pool, routes={"r": route("r", "/", "plain")}) as s, s.client() as client:
        assert s.conditions("HTTPRoute", "r") == {"primary": OK}
        assert s.conditions("InferencePool", "plain") == {"primary": OK}
        answers = [await post(client) for _ in range(40)]
        assert {answer.by for answer in answers} == {"plain-0", "plain-1", "plain-2"}


async def test_conformance_httproute_multiple_rules_different_pools(tmp_path: Path) -> None:
    routes = {"a": route("a", "/primary", "primary"), "b": route("b", "/secondary", "secondary")}
    async with serving(tmp_path, PRIMARY, SECONDARY, routes=routes) as s, s.client() as client:
        assert (await ask(client, "/primary")).by.startswith("primary")
        assert (await ask(client, "/secondary")).by.startswith("secondary")


async def test_conformance_inferencepool_resolved_refs_condition(tmp_path: Path) -> None:
    routes = {"a": route("a", "/", "primary"), "b": route("b", "/", "primary", parent="second")}
    where = serving(tmp_path, PRIMARY, routes=routes, gateways=("primary", "second"))
    async with where as s, s.client() as first, s.client("second") as second:
        assert s.conditions("InferencePool", "primary") == {"primary": OK, "second": OK}
        assert {(await ask(client)).by.partition("-")[0] for client in (first, second)} == {"primary"}
        await s.without("a")
        assert s.conditions("InferencePool", "primary") == {"second": OK}
        assert ((await ask(first)).status, (await ask(second)).status) == (404, 200)
        await s.without("b")
        assert s.conditions("InferencePool", "primary") == {}
        assert (await ask(second)).status == 404


# What the suite does not ask


async def test_a_closed_pool_serves_nothing_without_its_picker(tmp_path: Path) -> None:
    async with serving(tmp_path, PRIMARY, routes={"r": route("r", "/", "primary")}) as s, s.client() as client:
        picker = s.pickers["primary"]
        for mood, status in {"fails": 503, "picks nothing": 503, "sheds": 429, "picks": 200}.items():
            picker.mood = mood  # type: ignore[assignment]  # a Mood
            for content in (BODY, LONG):
                assert (await post(client, content=content)).status == status, mood
            assert (await ask(client)).status == status, mood
        picker.says = "127.1.9.9:1"  # not of the pool
        assert (await post(client)).status == 503
        await picker.stop()
        failed = await post(client)
        assert (failed.status, failed.error["type"]) == (503, "server_error")
        seen = sum(len(pod.seen) for pod in s.pods.values())
        assert seen == 3


async def test_an_open_pool_is_served_whatever_its_picker_does(tmp_path: Path) -> None:
    async with serving(tmp_path, SECONDARY, routes={"r": route("r", "/", "secondary")}) as s, s.client() as client:
        picker = s.pickers["secondary"]
        for mood in ("fails", "picks nothing", "silent", "picks"):
            picker.mood = mood  # type: ignore[assignment]  # a Mood
            answers = await asyncio.gather(post(client), post(client, content=LONG), ask(client))
            assert [answer.saw["body"].encode() for answer in answers] == [BODY, LONG, b""], mood
        picker.says = "127.1.9.9:1"
        assert (await post(client)).status == 200
        picker.mood = "sheds"  # which is an answer
        assert (await post(client)).status == 429


async def test_an_open_pool_gets_a_body_once_however_it_comes(tmp_path: Path) -> None:
    """Half a body that is kept for a retry when its picker fails would go to the backend twice."""
    async with serving(tmp_path, SECONDARY, routes={"r": route("r", "/", "secondary")}) as s, s.client() as client:
        picker = s.pickers["secondary"]
        for mood in ("picks", "fails", "stopped"):
            if mood == "stopped":
                await picker.stop()
            picker.mood = mood  # type: ignore[assignment]  # a Mood
            for content in (BODY, LONG, LONG * 10):  # the longest is more than Envoy keeps for a connection
                answer = await post(client, content=slowly(content), picked=SECONDARY.ip(1))
                assert answer.saw["body"].encode() == content, mood
                if mood == "picks":
                    assert answer.by == "secondary-1"


async def test_an_open_pool_refuses_a_body_that_is_too_large_to_be_held(tmp_path: Path) -> None:
    routes = {"r": route("r", "/", "secondary"), "v1": route("v1", "/v1/completions", "secondary")}
    async with serving(tmp_path, SECONDARY, routes=routes) as s, s.client() as client:
        too_large = b"x" * (MAX_REQUEST_BYTES + 1)
        answer = await post(client, "/v1/completions", content=too_large)
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        assert (await post(client, content=too_large)).status == 413
        told = explain(s.resolution.model, Request.of("POST", "http://test/", (), too_large))
        assert told.outcome == f"413: the body has more than {MAX_REQUEST_BYTES} bytes"


async def test_bodies_of_other_routes_are_not_held(tmp_path: Path) -> None:
    plain = Pool("plain", 11, picker=False, replicas=1)
    routes = {"a": route("a", "/", "secondary"), "b": route("b", "/plain", "plain")}
    async with serving(tmp_path, SECONDARY, plain, routes=routes) as s, s.client() as client:
        s.servers["plain-0"].close()
        arrived = asyncio.Event()

        async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"one")
            arrived.set()
            await reader.readuntil(b"two")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()

        async def content() -> AsyncIterator[bytes]:
            yield b"one"
            await arrived.wait()
            yield b"two"

        async with await asyncio.start_server(server, plain.ip(0), s.targets[0]), asyncio.timeout(10):
            assert (await client.post("/plain", content=content(), headers={"host": "test"})).status_code == 200


async def test_websockets_of_an_open_pool_are_not_held(tmp_path: Path) -> None:
    async with serving(tmp_path, SECONDARY, routes={"r": route("r", "/", "secondary")}) as s, s.client() as client:
        await s.pickers["secondary"].stop()
        headers = {"connection": "upgrade", "upgrade": "WebSocket", "sec-websocket-version": "13", "sec-websocket-key": "x"}
        await ask(client, headers=headers)
        (request,) = [request for pod in s.pods.values() for request in pod.seen]
        assert request["headers"]["upgrade"] == "WebSocket"


async def test_clients_do_not_pick(tmp_path: Path) -> None:
    async with serving(tmp_path, SECONDARY, routes={"r": route("r", "/", "secondary")}) as s, s.client() as client:
        await s.pickers["secondary"].stop()
        headers = {PICKED: f"{SECONDARY.ip(0)}:{s.targets[0]}"}
        answers = [await ask(client, headers=headers) for _ in range(40)]
        assert {answer.by for answer in answers} == {"secondary-0", "secondary-1", "secondary-2"}


async def test_retries_go_down_the_list(tmp_path: Path) -> None:
    async with serving(tmp_path, PRIMARY, routes={"r": route("r", "/", "primary")}) as s, s.client() as client:
        s.servers["primary-0"].close()
        there = f"{PRIMARY.ip(2)}:{s.targets[0]}"
        s.pickers["primary"].says = f"127.1.9.9:1,{PRIMARY.ip(0)}:{s.targets[0]},{there}"
        for content in (BODY, LONG):
            answer = await post(client, content=content)
            assert answer.by == "primary-2"
            assert answer.response.headers[SERVED] == there
            assert answer.saw["body"].encode() == content


async def test_a_picker_without_tls(tmp_path: Path) -> None:
    pool = Pool("plain", 7, tls=False)
    async with serving(tmp_path, pool, routes={"r": route("r", "/", "plain")}) as s, s.client() as client:
        assert (await post(client, picked=pool.ip(1))).by == "plain-1"


async def test_a_picker_is_asked_for_its_own_routes_only_and_after_the_model_is_known(tmp_path: Path) -> None:
    named = ', headers: [{name: x-model-id, value: "conformance-fake-model"}]'
    routes = {"a": route("a", "/", "primary", match=named), "b": route("b", "/", "plain")}
    plain = Pool("plain", 8, picker=False)
    async with serving(tmp_path, PRIMARY, plain, routes=routes) as s, s.client() as client:
        if s.options.module_path is None:
            pytest.fail("the native module is not built: make native")
        for content in (BODY, LONG):
            answer = await post(client, picked=PRIMARY.ip(1), content=content)
            assert (answer.by, answer.saw["body"].encode()) == ("primary-1", content)
        assert (await post(client, content=BODY.replace(b"fake", b"other"))).by.startswith("plain")
        assert (await ask(client)).by.startswith("plain")
        assert len(s.pickers["primary"].heard) == 2


@pytest.mark.parametrize("pool", [PRIMARY, SECONDARY], ids=["closed", "open"])
async def test_streams_are_passed_on_piece_by_piece(tmp_path: Path, pool: Pool) -> None:
    async with serving(tmp_path, pool, routes={"r": route("r", "/", pool.name)}) as s:
        s.servers[f"{pool.name}-0"].close()
        go_on = asyncio.Event()

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: one\n\n")
            await go_on.wait()  # set by who has read the first piece
            writer.write(b"data: two\n\n")
            writer.close()

        server = await asyncio.start_server(stream, pool.ip(0), s.targets[0])
        async with server, s.client() as client:
            request = client.stream("POST", "/", content=BODY, headers={SELECTION: pool.ip(0), "host": "test"})
            async with asyncio.timeout(10), request as answer:
                pieces = []
                async for piece in answer.aiter_text():
                    pieces.append(piece)
                    go_on.set()
        assert "".join(pieces) == "data: one\n\ndata: two\n\n"


async def test_pods_come_and_go(tmp_path: Path) -> None:
    pool = Pool("plain", 10, picker=False)
    async with serving(tmp_path, pool, routes={"r": route("r", "/", "plain")}) as s, s.client() as client:
        await s.without("plain/1", "plain/2")  # pods 0 and 1
        assert {(await ask(client)).by for _ in range(10)} == {"plain-2"}
        await s.without("plain/3")
        assert (await ask(client)).status == 503
