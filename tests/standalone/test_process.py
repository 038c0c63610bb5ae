"""`gwanmun up` and `demo` as processes: signals, takeovers, a second one, a user without privileges, a missing module."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from serving import CLASS, backend, gateway, ref, route, served, simulated, to, until

from free_ports import free_port
from gwanmun.app import standalone
from gwanmun.app.control import ControlClient
from gwanmun.app.standalone import end
from gwanmun.infra.admin import Admin
from gwanmun.infra.envoy import place_module
from gwanmun.infra.rundir import run_directory
from gwanmun.sim.load import Load, Target, http_request
from gwanmun.sim.spec import SimSpec

pytestmark = pytest.mark.envoy

COMMAND = (sys.executable, "-c", "from gwanmun.cli.main import main; main()")
ADDRESS = "127.0.3.40"


class Running:
    """A command that runs. `lines` are what it has printed so far, on stdout and stderr together."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip())

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def says(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        await until(lambda: re.search(pattern, self.text) is not None, lambda: self.text, seconds)
        found = re.search(pattern, self.text)
        assert found is not None
        return found

    async def ended(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), 60)
        await self._reading
        return code


@asynccontextmanager
async def running(*arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *COMMAND,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for whoever inherited it to notice."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def workers(pid: int) -> int:
    names = (task / "comm" for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(name.read_text().startswith("wrk:worker_") for name in names)


def first_unprivileged_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def everything_in(directory: Path) -> set[Path]:
    return set(directory.rglob("*"))


@asynccontextmanager
async def folder(directory: Path) -> AsyncIterator[tuple[Path, int]]:
    """Manifests of one route to one server, and the port that they name. What is left running is ended."""
    manifests = directory / "manifests"
    manifests.mkdir()
    port = free_port(ADDRESS)
    async with simulated(SimSpec("good", "echo")) as [good]:
        (manifests / "a.yaml").write_text(CLASS + gateway(port) + backend("good", good.port) + route("good", to("good")))
        try:
            yield manifests, port
        finally:
            await end((manifests,))


@dataclass
class Up:
    """A gateway that serves `manifests` on `port`, with the process id of its Envoy."""

    manifests: Path
    port: int
    command: Running
    envoy: int


@asynccontextmanager
async def serving_up(directory: Path, *options: str, drain_seconds: int = 1) -> AsyncIterator[Up]:
    """`gwanmun up` of a `folder`, when it serves."""
    arguments = ("--address", ADDRESS, "--drain-seconds", str(drain_seconds), *options)
    async with folder(directory) as (manifests, port), running("up", str(manifests), *arguments) as up:
        yield Up(manifests, port, up, int((await up.says(r"Envoy serves \(process (\d+)"))[1]))


async def test_interrupted_it_drains_and_leaves_nothing(tmp_path: Path) -> None:
    async with serving_up(tmp_path) as up:
        await up.command.says(rf"listens on {ADDRESS}:{up.port}")
        up.command.process.send_signal(signal.SIGINT)
        assert await up.command.ended() == 0
        assert "draining" in up.command.text
        assert "Traceback" not in up.command.text
        assert not alive(up.envoy)


async def test_a_closed_terminal_ends_it_in_good_order(tmp_path: Path) -> None:
    async with serving_up(tmp_path, drain_seconds=600) as up:
        async with unfinished_request(up):
            for _ in range(2):  # the kernel and the shell
                up.command.process.send_signal(signal.SIGHUP)
                await up.command.says("draining for up to 600 s")
            await asyncio.sleep(0.5)
            assert alive(up.envoy)
        assert await up.command.ended() == 0
        assert "Traceback" not in up.command.text
        assert not alive(up.envoy)


async def test_under_nohup_it_outlives_its_terminal(tmp_path: Path) -> None:
    arguments = ("--address", ADDRESS, "--drain-seconds", "0")
    async with folder(tmp_path) as (manifests, _), running("up", str(manifests), *arguments, prefix=("nohup",)) as up:
        await up.says("Envoy serves")
        up.process.send_signal(signal.SIGHUP)
        (manifests / "b.yaml").write_text(route("bad", to("nobody"), host="b.example.com"))
        await up.says("default/bad .*BackendNotFound")
        up.process.send_signal(signal.SIGTERM)
        assert await up.ended() == 0


async def test_a_second_one_is_told_of_the_first(tmp_path: Path) -> None:
    async with serving_up(tmp_path) as first, running("up", str(first.manifests), "--address", ADDRESS) as second:
        assert await second.ended() == 2
        assert len(second.lines) == 1
        assert f"already serves {first.manifests} (process {first.command.process.pid})" in second.text


async def test_a_link_that_is_named_is_followed_wherever_it_leads(tmp_path: Path) -> None:
    """As releases are switched (`ln -sfn 2 current`), and as a kubelet swaps the `..data` of a volume."""
    async with folder(tmp_path) as (manifests, port):
        manifests.rename(tmp_path / "..1")
        volume, link = tmp_path, tmp_path / "manifests"
        first = (tmp_path / "..1" / "a.yaml").read_text()
        (tmp_path / "..2").mkdir()
        (tmp_path / "..2" / "a.yaml").write_text(first.replace("a.example.com", "b.example.com"))
        link.symlink_to("..1")
        (volume / "..data").symlink_to("..1")
        (volume / "gw.yaml").symlink_to("..data/a.yaml")
        for named, swapped in ((link, link), (volume / "gw.yaml", volume / "..data")):
            async with running("up", str(named), "--address", ADDRESS, "--drain-seconds", "0") as up:
                await up.says("Envoy serves")
                (volume / "..next").symlink_to("..2")
                (volume / "..next").rename(swapped)
                async with Load(Target(ADDRESS, port, http_request("GET", "b.example.com", "/"))) as tally:
                    await until(lambda: tally.statuses[200] > 0, lambda: up.text)
                async with running("status", str(named)) as status, running("up", str(named)) as second:
                    assert await status.ended() == 0, status.text
                    assert await second.ended() == 2
                assert "already serves" in second.text
                async with running("down", str(named)) as down:
                    assert await down.ended() == 0
                assert "ended gwanmun" in down.text
                assert await up.ended() == 0


async def test_killed_outright_it_leaves_envoy_serving_for_the_next(tmp_path: Path) -> None:
    async with folder(tmp_path) as (manifests, port):
        async with running("up", str(manifests), "--address", ADDRESS, "--drain-seconds", "1") as first:
            envoy = int((await first.says(r"Envoy serves \(process (\d+)"))[1])
            target = Target(ADDRESS, port, http_request("GET", "a.example.com", "/"))
            async with Load(target, connections=1) as tally:
                await until(lambda: tally.answered > 20)
                first.process.kill()
                await first.ended()
                async with running("status", str(manifests)) as status:
                    assert await status.ended() == 2
                    assert f"Envoy (process {envoy}) serves {manifests} on" in status.text
                    assert f'"gwanmun up {manifests}" takes it over, "gwanmun down {manifests}" ends it' in status.text
                seen = tally.answered
                await until(lambda: tally.answered > seen + 20)
                async with running("up", str(manifests), "--address", ADDRESS, "--drain-seconds", "1") as second:
                    await second.says(rf"Envoy of an earlier start goes on \(process {envoy}\)")
                    await second.says("Envoy serves")
                    (manifests / "b.yaml").write_text(route("more", to("good"), host="b.example.com"))
                    more = Target(ADDRESS, port, http_request("GET", "b.example.com", "/"))
                    async with Load(more, connections=1) as answers:
                        await until(lambda: answers.statuses[200] > 0)
                    assert tally.failed == 0, tally.failures
                    assert tally.connections == 1
        assert not alive(envoy)


async def test_the_next_one_keeps_what_a_broken_file_said_before(tmp_path: Path) -> None:
    arguments = ("--address", ADDRESS, "--drain-seconds", "0")
    async with folder(tmp_path) as (manifests, port):
        secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"
        broken = manifests / "b.yaml"
        broken.write_text(route("more", to("good"), host="b.example.com") + secret)
        rundir = run_directory(manifests, os.environ)
        target = Target(ADDRESS, port, http_request("GET", "b.example.com", "/"))
        async with running("up", str(manifests), *arguments) as first:
            await first.says("Envoy serves")
            assert rundir.read("kept.json") is None
            broken.write_text("{ not: [yaml")
            message = (await first.says(r".*b.yaml:2: error: .*"))[0]
            assert {path.stat().st_mode & 0o777 for path in rundir.path.glob("*.json")} == {0o600}
            first.process.kill()
            await first.ended()
        async with Load(target, connections=1) as tally, running("up", str(manifests), *arguments) as second:
            await second.says(re.escape(message))
            await second.says("Envoy serves")
            (manifests / "c.yaml").write_text(route("later", to("good"), host="c.example.com"))
            later = Target(ADDRESS, port, http_request("GET", "c.example.com", "/"))
            async with Load(later, connections=1) as answers:
                await until(lambda: answers.statuses[200] > 0)
            seen = tally.answered
            await until(lambda: tally.answered > seen + 20)
            assert set(tally.statuses) == {200}
            assert tally.failed == 0, tally.failures
        assert rundir.read("kept.json") is None
        async with running("up", str(manifests), *arguments) as afresh:  # no Envoy to take over: the file says nothing
            await afresh.says("Envoy serves")
            async with Load(target, connections=1) as answers:
                await until(lambda: answers.statuses[404] > 0)


async def test_a_killed_ones_envoy_is_ended_by_down(tmp_path: Path) -> None:
    async with serving_up(tmp_path) as up:
        up.command.process.kill()
        await up.command.ended()
        async with running("down", str(up.manifests)) as down:
            assert await down.ended() == 0
            assert f"ended Envoy (process {up.envoy})" in down.text
        with pytest.raises(standalone.UserError, match="no gateway serves"):  # a socket is there, nobody behind it
            await ControlClient.of((up.manifests,)).status()
        assert not alive(up.envoy)
        assert await end((up.manifests,)) == [f"nothing serves {up.manifests}"]


@asynccontextmanager
async def unfinished_request(up: Up) -> AsyncIterator[None]:
    """A request whose body never comes: it stays in flight until somebody cuts it."""
    admin = Admin(run_directory(up.manifests, os.environ).admin_socket)
    _, writer = await asyncio.open_connection(ADDRESS, up.port)
    writer.write(b"POST / HTTP/1.1\r\nhost: a.example.com\r\ncontent-length: 9\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(20):
        while not await admin.unfinished():  # noqa: ASYNC110  Envoy tells nobody
            await asyncio.sleep(0.02)
    try:
        yield
    finally:
        writer.close()


async def test_interrupted_twice_it_ends_at_once_and_says_what_was_cut(tmp_path: Path) -> None:
    async with serving_up(tmp_path, drain_seconds=600) as up, unfinished_request(up):
        up.command.process.send_signal(signal.SIGINT)
        await up.command.says("draining for up to 600 s")
        assert alive(up.envoy)
        up.command.process.send_signal(signal.SIGINT)
        assert await up.command.ended() == 0
        assert "1 requests or connections had not ended and were cut" in up.command.text
        assert not alive(up.envoy)


async def test_down_waits_as_long_as_up_lets_requests_finish(tmp_path: Path) -> None:
    async with serving_up(tmp_path, drain_seconds=600) as up, unfinished_request(up):
        pid = up.command.process.pid
        async with running("down", str(up.manifests)) as down:
            await down.says(rf"waiting for gwanmun \(process {pid}\) to end; requests may finish for 600 s")
            await up.command.says("draining for up to 600 s")
            up.command.process.send_signal(signal.SIGINT)  # or this test would take as long
            assert await down.ended() == 0
            assert f"ended gwanmun (process {pid})" in down.text
        assert await up.command.ended() == 0
        assert not alive(up.envoy)


async def test_who_watches_is_told_of_the_end(tmp_path: Path) -> None:
    async with serving_up(tmp_path, drain_seconds=0) as up, running("status", str(up.manifests), "--watch") as watch:
        await watch.says("HTTPRoute")
        await watch.says(r"default/good:\d+\|kind=Backend=gwanmun.dev +1 of 1")
        up.command.process.send_signal(signal.SIGINT)
        assert await up.command.ended() == 0
        assert await watch.ended() == 2
        assert "no gateway serves" in watch.lines[-1]
        assert "Traceback" not in up.command.text + watch.text


async def test_a_port_that_becomes_free_is_taken(tmp_path: Path) -> None:
    async with folder(tmp_path) as (manifests, port):
        with socket.create_server((ADDRESS, port)) as other:
            async with running("up", str(manifests), "--address", ADDRESS, "--drain-seconds", "0") as up:
                await up.says(rf"tcp port {port} of {ADDRESS} is in use by .*--address")
                other.close()
                await up.says(rf"mended: .*tcp port {port} ")
                async with Load(Target(ADDRESS, port, http_request("GET", "a.example.com", "/"))) as tally:
                    await until(lambda: tally.statuses[200] > 0)


async def test_a_folder_without_manifests_is_told_so(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    async with running("up", str(empty), "--address", ADDRESS, "--drain-seconds", "0") as up:
        await up.says("there is no manifest in it .*yaml")
        (empty / "a.yaml").write_text(CLASS)
        await up.says("mended: .*there is no manifest")


async def test_logs_for_programs_say_all_that_people_are_told(tmp_path: Path) -> None:
    async with serving_up(tmp_path, "--log-format", "json", drain_seconds=0) as up:

        async def said(event: str, message: str) -> None:
            def there() -> bool:
                lines = [json.loads(line) for line in up.command.lines]
                return any(line["event"] == event and message in line["message"] for line in lines if "message" in line)

            await until(there, lambda: up.command.text, 60)

        await said("listening", f"listens on {ADDRESS}:{up.port}")
        await said("gateway", "Envoy serves")
        (up.manifests / "b.yaml").write_text(route("bad", to("nobody"), host="b.example.com"))
        await said("problem", "BackendNotFound")
        (up.manifests / "b.yaml").unlink()
        await said("mended", "BackendNotFound")


async def test_it_serves_on_when_nobody_reads_what_it_says(tmp_path: Path) -> None:
    async with folder(tmp_path) as (manifests, port):
        reading, writing = os.pipe()
        arguments = ("up", str(manifests), "--address", ADDRESS, "--drain-seconds", "0")
        up = await asyncio.create_subprocess_exec(*COMMAND, *arguments, stdout=writing, stderr=writing)
        os.close(writing)
        try:
            await asyncio.to_thread(os.read, reading, 1)
            os.close(reading)
            (manifests / "b.yaml").write_text(route("more", to("good"), host="b.example.com"))
            async with Load(Target(ADDRESS, port, http_request("GET", "b.example.com", "/"))) as tally:
                await until(lambda: tally.statuses[200] > 0, seconds=60)
            (manifests / "c.yaml").write_text(route("bad", to("nobody"), host="c.example.com"))
            (manifests / "d.yaml").write_text(route("last", to("good"), host="d.example.com"))
            async with Load(Target(ADDRESS, port, http_request("GET", "d.example.com", "/"))) as tally:
                await until(lambda: tally.statuses[200] > 0, seconds=60)
            assert up.returncode is None
        finally:
            up.send_signal(signal.SIGTERM)
            assert await up.wait() == 0


async def test_the_number_of_workers_is_as_asked(tmp_path: Path) -> None:
    async with serving_up(tmp_path, "--concurrency", "3") as up:
        assert workers(up.envoy) == 3


async def test_problems_are_said_once_and_their_end_too(tmp_path: Path) -> None:
    async with serving_up(tmp_path) as up:
        (up.manifests / "b.yaml").write_text(route("bad", to("nobody"), host="b.example.com"))
        await up.command.says("default/bad .*BackendNotFound")
        (up.manifests / "b.yaml").unlink()
        await up.command.says("mended: .*default/bad")
        assert sum("BackendNotFound" in line and "mended" not in line for line in up.command.lines) == 1


async def test_without_privileges_ports_are_mapped_and_said_so(tmp_path: Path) -> None:
    port = first_unprivileged_port() - 1
    without = ("setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service") if os.geteuid() == 0 else ()
    async with folder(tmp_path) as (manifests, _):
        (manifests / "b.yaml").write_text(gateway(port, name="low") + route("low", to("good"), parent="low"))
        async with running("up", str(manifests), "--address", ADDRESS, prefix=without) as up:
            await up.says("Envoy serves")
            line = await up.says(rf"default/low.* port {port} listens on {ADDRESS}:(\d+) .*port {port} needs privileges")
            async with Load(Target(ADDRESS, int(line[1]), http_request("GET", "a.example.com", "/"))) as tally:
                await until(lambda: tally.statuses[200] > 0)


@pytest.mark.parametrize("module", ["missing", "empty", "cut off"])
async def test_without_a_usable_module_all_else_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    source = tmp_path / "module.so"
    if module == "empty":
        source.write_bytes(b"")
    elif module == "cut off":
        source.write_bytes(b"\x7fELF" + bytes(36) + b"\xff\xff\xff\x00" + b"envoy_dynamic_module_on_program_init")
    monkeypatch.setattr(standalone, "place_module", partial(place_module, source=source))
    port = free_port(ADDRESS)
    model = f"{{matches: [{{headers: [{{name: x-model-id, value: gpt-4}}]}}], backendRefs: [{ref('good')}]}}"
    async with simulated(SimSpec("good", "echo")) as [good]:
        texts = {"a": CLASS + gateway(port) + backend("good", good.port) + route("good", model, to("good", path="/plain"))}
        async with served(tmp_path / "manifests", texts, port=port, address=ADDRESS) as gw:
            await gw.problem("module")
            assert (await gw.ask("/plain")).status_code == 200
            assert (await gw.ask("/", headers={"x-model-id": "gpt-4"})).status_code == 200
            assert (await gw.ask("/", "POST", json={"model": "gpt-4"})).status_code == 404


async def test_the_demo_is_a_check_that_leaves_nothing(run_directories: Path) -> None:
    before = everything_in(run_directories)
    async with running("demo", "--once") as one, running("demo", "--once") as other:
        assert (await one.ended(), await other.ended()) == (0, 0), one.text + other.text
    assert "13 of 13" in one.text
    assert "13 of 13" in other.text  # each on an address of its own
    assert everything_in(run_directories) == before


async def test_the_demo_stays_until_it_is_interrupted(run_directories: Path) -> None:
    async with running("demo") as demo:
        port = (await demo.says(r"https://inference.example.com:(\d+)/v1"))[1]
        await demo.says("Ctrl-C ends it")
        assert int(port) > 0
        demo.process.send_signal(signal.SIGINT)
        assert await demo.ended() == 0
        assert "Traceback" not in demo.text


@pytest.mark.parametrize("moment", ["Starting", "Ctrl-C ends it"])
async def test_a_demo_whose_terminal_is_closed_leaves_nothing(run_directories: Path, tmp_path: Path, moment: str) -> None:
    before = everything_in(run_directories)
    async with running("demo", TMPDIR=str(tmp_path)) as demo:
        await demo.says(moment)
        if moment == "Starting":
            await until(lambda: bool(everything_in(tmp_path)))
        demo.process.send_signal(signal.SIGHUP)
        assert await demo.ended() >= 0
        assert "Traceback" not in demo.text
    assert everything_in(run_directories) == before
    assert everything_in(tmp_path) == set()
