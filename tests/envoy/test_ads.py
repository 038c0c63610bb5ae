"""A real Envoy on our xDS server: it gets everything, in order, and survives the server's mistakes and restarts."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import trustme
from harness import (
    LOOPBACK,
    Envoy,
    backend,
    bootstrap,
    certificate,
    cluster,
    endpoints,
    listener,
    routes,
    running_envoy,
)

from free_ports import free_port
from gwanmun.xds_server import ProxyState, Publisher, Resource, ResourceSet, ServerOptions, XdsServer, resource
from gwanmun.xds_server.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET

SCOPE = "gateway"


def indexed(resources: Iterable[Resource]) -> dict[str, Resource]:
    return {found.name: found for found in resources}


@dataclass
class ControlPlane:
    """A server on a socket, and the set that it serves last."""

    publisher: Publisher
    server: XdsServer
    current: ResourceSet

    async def publish(self, new: ResourceSet) -> ProxyState:
        """Publish, and wait until the one proxy has applied it."""
        self.current = new
        serial = self.publisher.publish(SCOPE, new)
        async with asyncio.timeout(15):
            (state,) = await self.publisher.until_applied(SCOPE, serial)
        return state

    async def edit(self, type_url: str, *resources: Resource) -> ProxyState:
        return await self.publish(self.current.replace(type_url, indexed(resources)))

    async def synced(self) -> ProxyState:
        async with asyncio.timeout(15):
            (state,) = await self.publisher.until_applied(SCOPE, 1)
        return state


@asynccontextmanager
async def control_plane(socket: Path, first: ResourceSet) -> AsyncIterator[ControlPlane]:
    publisher = Publisher()
    server = XdsServer(publisher, lambda node, peer: SCOPE, ServerOptions(patience=0.5))
    await server.start(f"unix:{socket}")
    publisher.publish(SCOPE, first)
    try:
        yield ControlPlane(publisher, server, first)
    finally:
        await server.stop()


@dataclass
class Bench:
    """One Envoy that listens on `port`, with two backends."""

    directory: Path
    port: int
    one: int
    two: int

    @property
    def socket(self) -> Path:
        return self.directory / "ads.sock"

    def resources(self, *, secret: Resource | None = None) -> ResourceSet:
        """A listener, a route, a cluster, its endpoint, and a certificate if one is given."""
        return ResourceSet(
            {
                CLUSTER: indexed([cluster("one")]),
                ENDPOINTS: indexed([endpoints("one", self.one)]),
                LISTENER: indexed([listener("main", self.port, "routes", secret.name if secret else None)]),
                ROUTES: indexed([routes("routes", {"/": "one"})]),
                SECRET: indexed([secret] if secret else []),
            }
        )

    async def get(self, path: str = "/") -> str:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"http://{LOOPBACK}:{self.port}{path}")
            return response.text if response.status_code == 200 else str(response.status_code)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with backend("one") as one, backend("two") as two:
        yield Bench(tmp_path, free_port(), one, two)


@asynccontextmanager
async def serving(bench: Bench, first: ResourceSet) -> AsyncIterator[tuple[ControlPlane, Envoy]]:
    """Envoy has applied `first`."""
    async with control_plane(bench.socket, first) as plane, running_envoy(bench.directory, bootstrap(bench.socket)) as envoy:
        await plane.synced()
        yield plane, envoy


@asynccontextmanager
async def load(bench: Bench) -> AsyncIterator[list[str]]:
    """Requests one after another as long as the block runs; yields the list of what came back."""
    answers: list[str] = []

    async def ask() -> None:
        async with httpx.AsyncClient() as client:
            while True:
                response = await client.get(f"http://{LOOPBACK}:{bench.port}/")
                answers.append(response.text if response.status_code == 200 else f"{response.status_code}")

    task = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_everything_arrives_and_changes_take_effect(bench: Bench) -> None:
    async with serving(bench, bench.resources()) as (plane, envoy):
        assert await bench.get() == "one"
        state = await plane.edit(ENDPOINTS, endpoints("one", bench.two))
        assert state.rejections == ()
        assert await bench.get() == "two"
        assert await envoy.stat("cluster_manager.cds.update_rejected") == 0


async def test_moving_a_route_to_a_new_cluster_and_dropping_the_old_loses_nothing(bench: Bench) -> None:
    async with serving(bench, bench.resources()) as (plane, envoy), load(bench) as answers:
        for turn in range(10):
            name, port = f"next-{turn}", (bench.one, bench.two)[turn % 2]
            await plane.publish(
                ResourceSet(
                    {
                        CLUSTER: indexed([cluster(name)]),
                        ENDPOINTS: indexed([endpoints(name, port)]),
                        LISTENER: plane.current.of(LISTENER),
                        ROUTES: indexed([routes("routes", {"/": name})]),
                    }
                )
            )
            assert await envoy.clusters() == {name}
        assert len(answers) > 20
        assert set(answers) == {"one", "two"}


async def test_a_changed_cluster_is_in_use_at_once(bench: Bench) -> None:
    async with serving(bench, bench.resources()) as (plane, envoy), load(bench) as answers:
        await plane.edit(CLUSTER, cluster("one", connect_timeout=timedelta(seconds=3)))
        dump = (await envoy.admin.get("/config_dump", params={"resource": "dynamic_active_clusters"})).text
        assert '"connect_timeout": "3s"' in dump
        assert await envoy.stat("cluster_manager.warming_clusters") == 0
        assert set(answers) <= {"one"}


def refused_late(name: str) -> Resource:
    """A cluster that Envoy refuses only after it put it among those to warm."""
    return cluster(name, lb_policy="MAGLEV", maglev_lb_config={"table_size": {"value": 4}})


def refused_early(name: str) -> Resource:
    """A cluster that makes Envoy refuse the whole response, without saying which cluster it was."""
    return cluster(name, connect_timeout=timedelta(seconds=-1))


@pytest.mark.parametrize(("bad", "error"), [(refused_early, "Expected positive duration"), (refused_late, "cluster(s) c7: ")])
async def test_one_bad_cluster_keeps_no_other_out(bench: Bench, bad: Callable[[str], Resource], error: str) -> None:
    names = [f"c{n}" for n in range(30)]
    async with serving(bench, bench.resources()) as (plane, envoy):
        edited = plane.current.replace(CLUSTER, indexed([*map(cluster, names), bad("c7")]))
        edited = edited.replace(ENDPOINTS, indexed(endpoints(name, bench.two) for name in names))
        edited = edited.replace(ROUTES, indexed([routes("routes", {"/c8": "c8", "/c7": "c7", "/": "one"})]))
        state = await plane.publish(edited)
        assert [(found.type_url, found.name) for found in state.rejections] == [(CLUSTER, "c7")]
        assert error in state.rejections[0].error
        assert await envoy.clusters() == {"one", *names} - {"c7"}
        assert [await bench.get("/"), await bench.get("/c8"), await bench.get("/c7")] == ["one", "two", "503"]
        sent = state.resources_sent
        state = await plane.edit(ENDPOINTS, endpoints("c8", bench.one))
        assert state.resources_sent == sent + 1  # the bad one is not tried again
        state = await plane.edit(CLUSTER, cluster("c7"))
        assert state.rejections == ()
        assert await bench.get("/c7") == "two"


async def test_a_bad_cluster_in_the_first_sync_does_not_block_what_follows(bench: Bench) -> None:
    first = bench.resources().replace(CLUSTER, {"bad": refused_late("bad")})
    async with serving(bench, first.replace(ENDPOINTS, {"bad": endpoints("bad", bench.one)})) as (plane, envoy):
        edited = plane.current.replace(CLUSTER, {"two": cluster("two")})
        edited = edited.replace(ENDPOINTS, {"two": endpoints("two", bench.two)})
        state = await plane.publish(edited.replace(ROUTES, indexed([routes("routes", {"/": "two"})])))
        assert [found.name for found in state.rejections] == ["bad"]
        assert await envoy.clusters() == {"one", "two"}
        assert await bench.get() == "two"


async def test_a_changed_cluster_that_envoy_refuses_late_serves_on_as_it_was(bench: Bench) -> None:
    async with serving(bench, bench.resources()) as (plane, envoy), load(bench) as answers:
        state = await plane.edit(CLUSTER, refused_late("one"))
        assert [found.name for found in state.rejections] == ["one"]
        assert await envoy.clusters() == {"one"}
        assert await envoy.stat("cluster_manager.warming_clusters") == 0
        assert set(answers) == {"one"}


async def test_bad_routes_leave_the_last_good_ones_and_their_cluster_in_force(bench: Bench) -> None:
    async with serving(bench, bench.resources()) as (plane, _):
        state = await plane.publish(
            plane.current.replace(CLUSTER, {"one": None, "two": cluster("two")})
            .replace(ENDPOINTS, {"one": None, "two": endpoints("two", bench.two)})
            .replace(ROUTES, {"routes": resource("routes", b"\x0a\x06routes\x12\x00")})  # a virtual host without a name
        )
        assert [(found.type_url, found.name) for found in state.rejections] == [(ROUTES, "routes")]
        assert await bench.get() == "one"
        state = await plane.edit(ROUTES, routes("routes", {"/": "two"}))
        assert state.rejections == ()
        assert await bench.get() == "two"


async def test_a_restarted_server_sends_nothing_that_envoy_has(bench: Bench) -> None:
    first = bench.resources()
    async with running_envoy(bench.directory, bootstrap(bench.socket)) as envoy:
        async with control_plane(bench.socket, first) as plane:
            await plane.synced()
            assert await bench.get() == "one"
        updates = [await envoy.stat(name) for name in COUNTERS]
        assert await bench.get() == "one"
        again = bench.resources()
        async with control_plane(bench.socket, again) as plane:
            state = await plane.synced()
            assert state.resources_sent == 0
            assert [await envoy.stat(name) for name in COUNTERS] == updates
            await plane.edit(ENDPOINTS, endpoints("one", bench.two))
            assert await bench.get() == "two"


COUNTERS = (
    "cluster_manager.cluster_modified",
    "cluster_manager.cluster_added",
    "cluster_manager.cluster_removed",
    "listener_manager.listener_modified",
    "listener_manager.listener_added",
    "listener_manager.listener_removed",
    "http.http.rds.routes.config_reload",
)


async def test_a_server_that_has_nothing_to_say_yet_takes_nothing_away(bench: Bench) -> None:
    first = bench.resources()
    async with running_envoy(bench.directory, bootstrap(bench.socket)) as envoy:
        async with control_plane(bench.socket, first) as plane:
            await plane.synced()
        publisher = Publisher()
        server = XdsServer(publisher, lambda node, peer: SCOPE)
        await server.start(f"unix:{bench.socket}")
        connected = await envoy.stat("control_plane.connected_state")
        async with asyncio.timeout(10):
            while not connected:
                connected = await envoy.stat("control_plane.connected_state")
        assert publisher.proxies() == ()
        assert await bench.get() == "one"
        async with asyncio.timeout(10):
            (state,) = await publisher.until_applied(SCOPE, publisher.publish(SCOPE, first))
        assert state.resources_sent == 0
        await server.stop()


async def test_a_certificate_is_renewed_for_new_connections(bench: Bench) -> None:
    authority = trustme.CA()
    old, new = authority.issue_cert("old.test"), authority.issue_cert("new.test")

    def secret(leaf: trustme.LeafCert) -> Resource:
        return certificate("cert", leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())

    async def served_name() -> str:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        context.check_hostname = False
        _, writer = await asyncio.open_connection(LOOPBACK, bench.port, ssl=context)
        try:
            return str(writer.get_extra_info("peercert")["subjectAltName"][0][1])
        finally:
            writer.close()

    async with serving(bench, bench.resources(secret=secret(old))) as (plane, _):
        assert await served_name() == "old.test"
        await plane.edit(SECRET, secret(new))
        assert await served_name() == "new.test"


def unusable(name: str) -> Resource:
    """A certificate with another one's key."""
    leaf, other = trustme.CA().issue_cert("a.test"), trustme.CA().issue_cert("b.test")
    return certificate(name, leaf.cert_chain_pems[0].bytes(), other.private_key_pem.bytes())


def usable(name: str) -> Resource:
    leaf = trustme.CA().issue_cert(f"{name}.test")
    return certificate(name, leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes())


async def handshakes(port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
    except (OSError, ssl.SSLError):
        return False
    writer.close()
    return True


async def test_each_unusable_certificate_is_told_and_keeps_no_other_out(bench: Bench) -> None:
    names = [f"s{n}" for n in range(9)]
    secrets = {name: unusable(name) if name in ("s2", "s6") else usable(name) for name in names}
    ports = {name: free_port() for name in names}
    first = bench.resources().replace(SECRET, secrets)
    first = first.replace(LISTENER, {name: listener(name, ports[name], "routes", name) for name in names})
    async with serving(bench, first) as (plane, _):
        (state,) = plane.publisher.proxies()
        assert {refused.name for refused in state.rejections} == {"s2", "s6"}
        assert {name for name in names if not await handshakes(ports[name])} == {"s2", "s6"}
        state = await plane.edit(SECRET, usable("s2"))
        assert [refused.name for refused in state.rejections] == ["s6"]
        assert await handshakes(ports["s2"])


@pytest.mark.parametrize("had", [True, False])
async def test_a_restarted_server_hears_again_of_an_unusable_certificate(bench: Bench, *, had: bool) -> None:
    bad = bench.resources(secret=unusable("cert"))
    async with running_envoy(bench.directory, bootstrap(bench.socket)):
        async with control_plane(bench.socket, bench.resources(secret=usable("cert")) if had else bad) as plane:
            await plane.synced()
            await plane.publish(bad)
        for _ in range(2):
            async with control_plane(bench.socket, bad) as plane:
                state = await plane.synced()
                assert [refused.name for refused in state.rejections] == ["cert"]


async def test_a_listener_changes_while_its_renewed_certificate_is_refused(bench: Bench) -> None:
    async with serving(bench, bench.resources(secret=usable("cert"))) as (plane, _):
        await plane.edit(SECRET, unusable("cert"))
        state = await plane.edit(LISTENER, listener("main", bench.port, "routes", "cert", stat="changed"))
        assert [refused.name for refused in state.rejections] == ["cert"]
        assert await handshakes(bench.port)


async def test_a_listener_is_replaced_on_its_port(bench: Bench) -> None:
    async with serving(bench, bench.resources()) as (plane, _):
        replaced = listener("other", bench.port, "routes", stat="other")
        state = await plane.publish(plane.current.replace(LISTENER, {"main": None, "other": replaced}))
        assert state.rejections == ()
        assert await bench.get() == "one"
