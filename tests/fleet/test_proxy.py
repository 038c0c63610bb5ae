"""The proxy's program: who it lets itself be configured by, what it says of itself, and how it ends."""

import asyncio
import contextlib
import errno
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from structlog.testing import capture_logs

from fleet.conftest import Pod, towards
from fleet.plane import SCOPE, control_plane, one_listener
from free_ports import free_port
from gwanmun.app.errors import UserError
from gwanmun.app.proxy import proxy_options
from gwanmun.infra.admin import Admin
from gwanmun.infra.rundir import RunDir
from gwanmun.xds_server import ResourceSet

pytestmark = pytest.mark.envoy

NEEDED = {"GWANMUN_XDS_ADDRESS": "gwanmun.sys.svc:18000", "GWANMUN_GATEWAY": "ai/gw", "GWANMUN_POD_NAME": "gw-1"}


async def get(port: int, path: str = "/") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


async def test_it_is_ready_once_it_is_configured_and_not_before(pod: Pod, authority: trustme.CA) -> None:
    front = free_port()
    async with control_plane(authority) as plane, towards(pod, plane).running() as proxy:
        await proxy.until("/ready", 503, "waiting for the first configuration")
        assert (await proxy.ask("/healthz")).status_code == 200
        plane.publisher.publish(SCOPE, ResourceSet({}))
        await proxy.until("/ready", 200)
        serial = plane.publisher.publish(SCOPE, one_listener(front, "hello"))
        await plane.publisher.until_applied(SCOPE, serial)
        assert (await get(front)).text == "hello"
        metrics = (await proxy.ask("/metrics")).text
    assert plane.seen[0] == "Bearer one"
    assert re.search(r"^envoy_http_downstream_rq_total\{.*\} 1$", metrics, re.MULTILINE)
    assert "gwanmun_proxy_draining 0" in metrics
    assert "# TYPE gwanmun_backend_requests_total counter" in metrics
    assert proxy.task.result() == 0


async def test_the_control_plane_learns_where_it_runs(pod: Pod, authority: trustme.CA) -> None:
    async with control_plane(authority) as plane, towards(pod, plane).running() as proxy:
        plane.publisher.publish(SCOPE, one_listener(free_port(), "hello"))
        await proxy.until("/ready", 200)
    assert plane.nodes[0].id == "gw-1"
    assert plane.nodes[0].cluster == SCOPE


async def test_a_renewed_token_is_shown_from_the_next_stream_on(pod: Pod, authority: trustme.CA) -> None:
    async with control_plane(authority) as plane, towards(pod, plane).running() as proxy:
        plane.accepted = {"Bearer two"}
        await plane.token_seen("Bearer one")
        pod.token.write(token="two")
        await plane.token_seen("Bearer two")
        plane.publisher.publish(SCOPE, one_listener(free_port(), "hello"))
        await proxy.until("/ready", 200)


async def test_a_token_that_cannot_be_read_for_a_while_is_renewed_afterwards(pod: Pod, authority: trustme.CA) -> None:
    with capture_logs() as logs:
        async with control_plane(authority) as plane, towards(pod, plane).running() as proxy:
            await plane.token_seen("Bearer one")
            pod.token.take_away()
            await until_told(logs, "credentials_unreadable", "cannot be read: No such file or directory")
            assert not proxy.task.done()
            pod.token.write(token="two")
            await until_told(logs, "credentials_renewed")
    assert "two" in token_of_envoy(pod)


async def test_a_token_that_cannot_be_written_down_is_tried_again(
    pod: Pod, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with capture_logs() as logs:
        async with control_plane(authority) as plane, towards(pod, plane).running():
            await plane.token_seen("Bearer one")
            with monkeypatch.context() as patched:
                patched.setattr(RunDir, "write", full)
                pod.token.write(token="two")
                await until_told(logs, "credentials_unreadable", "No space left on device")
                assert "two" not in token_of_envoy(pod)
            await until_told(logs, "credentials_renewed")
    assert "two" in token_of_envoy(pod)


def token_of_envoy(pod: Pod) -> str:
    return (pod.options.run_directory / "xds-token.json").read_text()


async def until_told(logs: Sequence[Mapping[str, Any]], event: str, message: str = "") -> None:
    async with asyncio.timeout(20):
        while not any(one["event"] == event and message in one.get("message", "") for one in list(logs)):  # noqa: ASYNC110  logs tell nobody
            await asyncio.sleep(0.02)


async def test_a_control_plane_of_another_authority_is_not_spoken_to_until_its_authority_is_known(
    pod: Pod, authority: trustme.CA
) -> None:
    other = trustme.CA()
    async with control_plane(other) as plane, towards(pod, plane).running() as proxy:
        plane.publisher.publish(SCOPE, one_listener(free_port(), "hello"))
        await proxy.until("/metrics", 200, "envoy_cluster_ssl_fail_verify_error")
        assert plane.seen == []
        both = authority.cert_pem.bytes() + other.cert_pem.bytes()
        pod.ca.write(**{"ca.crt": both.decode()})
        await proxy.until("/ready", 200)


async def test_a_certificate_for_another_name_is_refused(pod: Pod, authority: trustme.CA) -> None:
    async with control_plane(authority, name="another.test.svc") as plane, towards(pod, plane).running() as proxy:
        plane.publisher.publish(SCOPE, one_listener(free_port(), "hello"))
        await proxy.until("/metrics", 200, "envoy_cluster_ssl_fail_verify_san")
        assert plane.seen == []
        assert (await proxy.ask("/ready")).status_code == 503


async def test_a_stop_waits_for_what_is_under_way(pod: Pod, authority: trustme.CA) -> None:
    front, go, came = free_port(), asyncio.Event(), asyncio.Event()

    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone")
        await writer.drain()
        writer.close()

    backend = await asyncio.start_server(slow, "127.0.0.1", 0)
    async with backend, control_plane(authority) as plane, towards(pod, plane).running() as proxy:
        plane.publisher.publish(SCOPE, one_listener(front, "hello", backend=backend.sockets[0].getsockname()[1]))
        await proxy.until("/ready", 200)
        request = asyncio.create_task(get(front, "/slow"))
        await asyncio.wait_for(came.wait(), 10)
        proxy.proxy.stop()
        await proxy.until("/ready", 503, "draining")
        await proxy.until("/metrics", 200, "gwanmun_proxy_draining 1")
        assert not proxy.task.done()
        go.set()
        assert (await request).text == "done"
        assert await asyncio.wait_for(proxy.task, 10) == 0


async def test_new_connections_are_taken_until_it_has_settled_however_short_the_drain(pod: Pod, authority: trustme.CA) -> None:
    front = free_port()
    pod.options = replace(pod.options, settle=timedelta(seconds=3), drain=timedelta(seconds=1))
    async with control_plane(authority) as plane, towards(pod, plane).running() as proxy:
        plane.publisher.publish(SCOPE, one_listener(front, "hello"))
        await proxy.until("/ready", 200)
        proxy.proxy.stop()
        await asyncio.sleep(1.5)
        assert (await get(front)).text == "hello"
        assert await asyncio.wait_for(proxy.task, 10) == 0


async def test_when_envoy_ends_so_does_the_container(pod: Pod, authority: trustme.CA) -> None:
    async with control_plane(authority) as plane, towards(pod, plane).running() as proxy:
        plane.publisher.publish(SCOPE, one_listener(free_port(), "hello"))
        await proxy.until("/ready", 200)
        assert proxy.proxy._child is not None
        os.kill(proxy.proxy._child.pid, signal.SIGKILL)
        assert await asyncio.wait_for(proxy.task, 10) != 0


async def test_an_envoy_that_ends_while_it_is_drained_is_not_waited_for(pod: Pod, authority: trustme.CA) -> None:
    front, came = free_port(), asyncio.Event()

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        writer.close()

    backend = await asyncio.start_server(never, "127.0.0.1", 0)
    async with control_plane(authority) as plane, towards(pod, plane).running() as proxy:
        plane.publisher.publish(SCOPE, one_listener(front, "hello", backend=backend.sockets[0].getsockname()[1]))
        await proxy.until("/ready", 200)
        request = asyncio.create_task(get(front, "/slow"))
        await asyncio.wait_for(came.wait(), 10)
        proxy.proxy.stop()
        await asyncio.sleep(0.5)  # longer than it settles: it asks what is unfinished
        assert not proxy.task.done()
        assert proxy.proxy._child is not None
        os.kill(proxy.proxy._child.pid, signal.SIGKILL)
        assert await asyncio.wait_for(proxy.task, 5) != 0
        with pytest.raises(httpx.TransportError):
            await request
    backend.close()


async def test_its_own_death_leaves_no_envoy_and_every_line_is_an_object(pod: Pod, folder: Path, authority: trustme.CA) -> None:
    program = (
        "import asyncio, pathlib, pickle, sys\n"
        "from gwanmun.app.logs import configure_logs\n"
        "from gwanmun.app.proxy import run_proxy\n"
        "configure_logs('json')\n"
        "asyncio.run(run_proxy(pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())))\n"
    )
    import pickle

    async with control_plane(authority) as plane:
        plane.publisher.publish(SCOPE, one_listener(free_port(), "hello"))
        (folder / "options").write_bytes(pickle.dumps(towards(pod, plane).options))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, str(folder / "options"), stderr=asyncio.subprocess.PIPE
        )
        assert process.stderr is not None
        async with asyncio.timeout(20):
            while json.loads(await process.stderr.readline()).get("event") != "envoy_started":  # Envoy may speak before
                pass
        process.kill()
        rest = await asyncio.wait_for(process.stderr.read(), 10)  # ends when Envoy, too, has let go of it
    for line in rest.splitlines():
        json.loads(line)


@pytest.mark.parametrize("address", ["gwanmun.sys.svc:18000", "10.0.0.1:18000", "[2001:db8::1]:18000"])
def test_addresses_of_the_control_plane(address: str) -> None:
    options = proxy_options({**NEEDED, "GWANMUN_XDS_ADDRESS": address})
    assert f"{options.xds_host}:{options.xds_port}" == address.replace("[", "").replace("]", "")


@pytest.mark.parametrize(("said", "seconds"), [("", 5), ("0", 0), ("120", 120)])
def test_how_long_new_connections_are_taken_at_the_end(said: str, seconds: int) -> None:
    assert proxy_options({**NEEDED, "GWANMUN_SETTLE_SECONDS": said}).settle == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GWANMUN_XDS_ADDRESS", ""),
        ("GWANMUN_XDS_ADDRESS", "gwanmun"),
        ("GWANMUN_XDS_ADDRESS", "gwanmun:99999"),
        ("GWANMUN_XDS_ADDRESS", "2001:db8::1:18000"),
        ("GWANMUN_GATEWAY", ""),
        ("GWANMUN_POD_NAME", ""),
        ("GWANMUN_CONCURRENCY", "two"),
        ("GWANMUN_SETTLE_SECONDS", "soon"),
        ("GWANMUN_DRAIN_SECONDS", "-1"),
        ("GWANMUN_LOG_LEVEL", "loud"),
        ("GWANMUN_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(UserError, match=name):
        proxy_options({**NEEDED, name: value})


@pytest.mark.parametrize("source", ["prometheus", "module_metrics"])
async def test_metrics_of_any_size_are_passed_on(
    pod: Pod, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    line = b'envoy_cluster_upstream_rq_total{envoy_cluster_name="ai/chat_80"} 1\n' * 16_384

    @contextlib.asynccontextmanager
    async def very_many(*_: object) -> AsyncIterator[AsyncIterator[bytes]]:
        yield pieces()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            await asyncio.sleep(0)
            yield line

    async with control_plane(authority) as plane, towards(pod, plane).running() as proxy:
        await proxy.until("/metrics", 200)
        monkeypatch.setattr(Admin, source, very_many)
        answer = await proxy.ask("/metrics")
    assert answer.status_code == 200
    assert len(answer.content) > 40 * len(line)
