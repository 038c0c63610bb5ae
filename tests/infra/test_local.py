"""Envoy's process with a real Envoy: started, restarted, adopted, hot restarted and ended."""

import asyncio
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from gwanmun.infra.admin import Admin, AdminError
from gwanmun.infra.bound import read_bindings, write_bindings
from gwanmun.infra.ending import Ended, down
from gwanmun.infra.envoy import EnvoyBinary, find_envoy
from gwanmun.infra.launch import LaunchOptions, find_envoys, shared_memory
from gwanmun.infra.local import Adopted, Event, Failed, HotRestarted, LocalEnvoy, Notice, Ready, Started
from gwanmun.infra.ports import LocalBinding, PortKey
from gwanmun.infra.processes import identify, wait_ended
from gwanmun.infra.rundir import RunDir, State, run_directory
from gwanmun.names import NamespacedName

from .harness import answering

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(60)]

QUICK = LaunchOptions(
    concurrency=1,
    drain_time=timedelta(seconds=1),
    parent_shutdown_time=timedelta(seconds=2),
    stop_grace=timedelta(seconds=5),
)


@pytest.fixture(scope="module")
def binary() -> EnvoyBinary:
    return find_envoy()


class Watched:
    """A LocalEnvoy and what it has reported."""

    def __init__(self, rundir: RunDir, binary: EnvoyBinary, options: LaunchOptions = QUICK) -> None:
        self.events: list[Event] = []
        self._news = asyncio.Event()
        self.envoy = LocalEnvoy(rundir, binary, report=self._report, clock=time.monotonic, draw=random.random, options=options)

    def _report(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def reported(self, kind: type[Event], count: int = 1) -> Event:
        while len(found := [event for event in self.events if isinstance(event, kind)]) < count:
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), 20)
        return found[count - 1]


@asynccontextmanager
async def serving(rundir: RunDir, binary: EnvoyBinary, port: int, body: str = "one") -> AsyncIterator[Watched]:
    watched = Watched(rundir, binary)
    await watched.envoy.start(answering(rundir, port, body))
    await asyncio.wait_for(watched.envoy.wait_ready(), 20)
    yield watched
    await watched.envoy.leave()


async def get(port: int) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).text


async def ended(pid: int) -> None:
    process = identify(pid)
    if process is not None:
        await asyncio.wait_for(wait_ended(process), 20)


async def test_started_ready_and_stopped(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port) as watched:
        assert await get(port) == "one"
        pid = watched.envoy.status.pid
        assert [type(event) for event in watched.events] == [Started, Ready]
        assert watched.envoy.status.ready
        assert watched.envoy.status.problem is None
        assert pid is not None
        assert os.getsid(pid) != os.getsid(0), "Ctrl-C in our terminal must not reach it"
        assert await watched.envoy.stop() == 0
    assert identify(pid) is None
    assert watched.envoy.status.pid is None
    assert rundir.read_state() == State()
    assert not rundir.admin_socket.exists()
    assert not shared_memory(rundir).exists()


async def test_killed_envoy_is_restarted(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port) as watched:
        first = watched.envoy.status.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        failed = await watched.reported(Failed)
        assert isinstance(failed, Failed)
        assert failed.message == f"Envoy (process {first}) ended"
        await watched.reported(Ready, 2)
        assert await get(port) == "one"
        assert watched.envoy.status.pid != first
        assert watched.envoy.status.restarts == 1


async def test_next_control_plane_adopts_what_the_last_one_left(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port) as first:
        pid = first.envoy.status.pid
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).text == "one"
        async with serving(rundir, binary, port) as second:
            assert second.events[0] == Adopted(pid)
            assert second.envoy.status.pid == pid
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "one"
            assert client_connections(client) == 1, "the connection of before must still be in use"
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await second.reported(Ready, 2)
            assert await get(port) == "one"


def client_connections(client: httpx.AsyncClient) -> int:
    return len(client._transport._pool.connections)  # type: ignore[attr-defined]  # httpx says it nowhere else


async def test_ports_are_remembered_while_envoy_runs(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    key = PortKey(NamespacedName("ns", "gw"), 80, "tcp")
    bindings = {key: (LocalBinding("127.0.0.1", port, port, "port 80 needs privileges"),)}
    assert read_bindings(rundir) == {}
    async with serving(rundir, binary, port):
        write_bindings(rundir, bindings)
        assert read_bindings(rundir) == bindings
    assert read_bindings(rundir) == bindings
    await down(rundir)
    assert read_bindings(rundir) == {}
    async with serving(rundir, binary, port):
        rundir.write("ports.json", b"[[[]]")
        assert read_bindings(rundir) == {}


async def test_envoy_is_found_without_its_state(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port) as first:
        pid = first.envoy.status.pid
    (rundir.path / "state.json").write_text("{half a sta")
    async with serving(rundir, binary, port) as second:
        assert second.events[0] == Adopted(pid)


async def test_changed_bootstrap_loses_no_request(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port, "one") as watched:
        old = watched.envoy.status.pid
        assert old is not None
        stop = asyncio.Event()
        bodies: list[str] = []

        async def load() -> None:
            async with httpx.AsyncClient() as client:
                while not stop.is_set():
                    answer = await client.get(f"http://127.0.0.1:{port}/")
                    answer.raise_for_status()
                    bodies.append(answer.text)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(load())
            watched.envoy.apply(answering(rundir, port, "two"))
            event = await watched.reported(HotRestarted)
            assert event == HotRestarted(watched.envoy.status.pid or 0, old)
            await ended(old)
            stop.set()
        assert set(bodies) == {"one", "two"}
        assert [body for body, _ in itertools.groupby(bodies[-10:])] == ["two"]
        await reaches(lambda: watched.envoy.status.draining == ())
        assert watched.envoy.status.epoch == 1
        assert [found.pid for found in find_envoys(rundir)] == [watched.envoy.status.pid]


async def test_next_control_plane_with_another_bootstrap_hot_restarts(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port, "one") as first:
        old = first.envoy.status.pid
    async with serving(rundir, binary, port, "two") as second:
        assert isinstance(second.events[0], HotRestarted)
        assert second.events[0].old_pid == old
        assert await get(port) == "two"


async def test_two_hot_restarts_in_a_row(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port, "one") as watched:
        for count, body in enumerate(("two", "three"), start=1):
            watched.envoy.apply(answering(rundir, port, body))
            await watched.reported(HotRestarted, count)
        assert await get(port) == "three"
        assert watched.envoy.status.epoch == 2


async def test_refused_bootstrap_keeps_the_old_one_serving(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port, "one") as watched:
        wrong = answering(rundir, port, "two")
        wrong["static_resources"]["listeners"][0]["adress"] = {}
        watched.envoy.apply(wrong)
        failed = await watched.reported(Failed)
        assert isinstance(failed, Failed)
        assert "goes on with its old bootstrap" in failed.message
        assert "adress" in failed.log_tail
        assert "goes on with its old bootstrap" in (watched.envoy.status.problem or "")
        assert await get(port) == "one"
        watched.envoy.apply(answering(rundir, port, "three"))
        await watched.reported(HotRestarted)
        assert await get(port) == "three"
        await reaches(lambda: watched.envoy.status.problem is None)


async def test_crash_loop_is_a_problem_with_the_end_of_the_log(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    wrong = answering(rundir, port, "one")
    wrong["node"]["idd"] = "typing error"
    watched = Watched(rundir, binary)
    await watched.envoy.start(wrong)
    third = await watched.reported(Failed, 3)
    assert isinstance(third, Failed)
    assert "ended (3 failures in a row)" in third.message
    assert "idd" in third.log_tail
    assert 0.2 <= third.retry_seconds <= 0.4
    assert "idd" in (watched.envoy.status.problem or "")
    watched.envoy.apply(answering(rundir, port, "repaired"))
    await asyncio.wait_for(watched.envoy.wait_ready(), 20)
    assert await get(port) == "repaired"
    await watched.envoy.leave()


async def test_hung_envoy_is_replaced(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port) as first:
        pid = first.envoy.status.pid
        assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    async with serving(rundir, binary, port) as second:
        assert isinstance(second.events[0], Notice)
        assert f"Envoy {pid} of an earlier start is ended" in second.events[0].message
        assert await get(port) == "one"
        assert identify(pid) is None


async def test_stop_waits_for_requests_in_flight(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    """The backend answers only when the stop is under way."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(backend, "127.0.0.1", 0)
    document = answering(rundir, port, "")
    manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"] = [{"match": {"prefix": "/"}, "route": {"cluster": "slow"}}]
    where = {"socket_address": {"address": "127.0.0.1", "port_value": server.sockets[0].getsockname()[1]}}
    assignment = {"cluster_name": "slow", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}]}
    document["static_resources"]["clusters"].append({"name": "slow", "load_assignment": assignment})
    watched = Watched(rundir, binary)
    await watched.envoy.start(document)
    await asyncio.wait_for(watched.envoy.wait_ready(), 20)
    request = asyncio.create_task(get(port))
    await asked.wait()
    stop = asyncio.create_task(watched.envoy.stop())
    await refused(port)
    assert not stop.done()
    answer.set()
    assert await request == "late"
    assert await stop == 0
    server.close()


async def refused(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            continue  # its socket was closed while we were waiting to be accepted
        writer.close()


async def reaches(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is awaited tells nobody
            await asyncio.sleep(0.01)


async def test_two_folders_side_by_side(
    runtime: Path, tmp_path: Path, binary: EnvoyBinary, port: int, second_port: int
) -> None:
    environ = {"XDG_RUNTIME_DIR": str(runtime)}
    one, two = (run_directory(tmp_path / name, environ) for name in ("one", "two"))
    async with serving(one, binary, port, "one") as first:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}")).text == "one"
        async with serving(two, binary, second_port, "two") as second:
            assert (await get(port), await get(second_port)) == ("one", "two")
            await first.envoy.stop()
            assert await get(second_port) == "two"
            second.envoy.apply(answering(two, second_port, "three"))
            await second.reported(HotRestarted)
            assert await get(second_port) == "three"


async def test_down_ends_what_is_left(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port) as watched:
        pid = watched.envoy.status.pid
    assert pid is not None
    assert await down(rundir, grace=timedelta(seconds=1)) == Ended(None, (pid,))
    assert identify(pid) is None
    assert await down(rundir) == Ended(None, ())
    with pytest.raises(AdminError, match="gives no answer"):
        await Admin(rundir.admin_socket).server_info()


async def test_without_hot_restart_a_changed_bootstrap_is_a_restart(
    rundir: RunDir, binary: EnvoyBinary, port: int, monkeypatch
) -> None:
    monkeypatch.setattr("gwanmun.infra.launch._SHARED_MEMORY", Path("/proc/none"))
    async with serving(rundir, binary, port) as watched:
        old = watched.envoy.status.pid
        assert isinstance(watched.events[0], Notice)
        watched.envoy.apply(answering(rundir, port, "two"))
        await watched.reported(Ready, 2)
        assert await get(port) == "two"
        assert watched.envoy.status.pid != old


async def test_admin_tells_about_the_server(rundir: RunDir, binary: EnvoyBinary, port: int) -> None:
    async with serving(rundir, binary, port) as watched:
        admin = watched.envoy.admin
        info = await admin.server_info()
        assert (info.version, info.state, info.epoch) == (binary.version, "LIVE", 0)
        assert await get(port) == "one"
        stats = await admin.stats(r"^http\.front\.downstream_rq_")
        assert stats["http.front.downstream_rq_total"] == 1
        assert "http.front.downstream_rq_http3_total" not in stats
        async with admin.prometheus("downstream_rq_time") as pieces:
            scraped = b"".join([piece async for piece in pieces]).decode()
        assert 'envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="front",le="1800000"} 1' in scraped
        dump = await admin.config_dump("static_listeners")
        assert dump["configs"][0]["listener"]["name"] == "front"
        assert [cluster["name"] for cluster in (await admin.clusters())["cluster_statuses"]] == ["gwanmun_xds"]
        with pytest.raises(AdminError, match="answered /config_dump with 4"):
            await admin.config_dump("no_such_field")
        await admin.quit()
        await watched.reported(Ready, 2)
