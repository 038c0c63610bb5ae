"""TCP and UDP listeners, endpoints near and far, and limits on connections."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from harness import LOOPBACK
from modelling import GATEWAY, ROUTE_GROUP, bound, cluster_key, http, listener_key, model, rule, to, with_backend
from proxied import ask, proxy, upstreams

from free_ports import free_port
from gwanmun.ir import (
    Backend,
    ConnectionSettings,
    Endpoint,
    L4Rule,
    Model,
    TcpListener,
    UdpListener,
    WeightedTarget,
)
from gwanmun.names import ObjectKey, RuleKey


def l4(protocol: str, *shares: tuple[str | None, int]) -> L4Rule:
    targets = tuple(WeightedTarget(None if name is None else cluster_key(name, protocol), weight) for name, weight in shares)
    return L4Rule(RuleKey(ObjectKey(ROUTE_GROUP, "Route", "ai", "r"), 0), targets)


def with_l4(base: Model, protocol: str, **ports: int | None) -> Model:
    for name, port in ports.items():
        key = cluster_key(name, protocol)
        where = [] if port is None else [Endpoint(LOOPBACK, port)]
        base = with_backend(base, Backend(key, protocol), *where)  # type: ignore[arg-type]  # a Protocol
    return base


# TCP


@asynccontextmanager
async def greeter(name: str) -> AsyncIterator[int]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name.encode())
        writer.close()

    server = await asyncio.start_server(greet, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def read_all(port: int) -> str:
    """What the server says, nothing where the connection is closed at once."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        return (await asyncio.wait_for(reader.read(), 10)).decode()
    except ConnectionResetError:
        return ""
    finally:
        writer.close()


async def test_tcp_by_weight(tmp_path) -> None:
    port = free_port()
    async with greeter("a") as a, greeter("b") as b:
        listener = TcpListener(listener_key("tcp"), l4("tcp", ("a", 3), ("b", 1), (None, 1)))
        served = with_l4(model(listener, port=9000), "tcp", a=a, b=b)
        async with proxy(tmp_path, served, bound(9000, port), port) as running:
            counts = Counter([await read_all(port) for _ in range(300)])
            assert counts["a"] > counts["b"] > 20
            assert counts[""] > 20
            await running.show(model(TcpListener(listener_key("tcp")), port=9000), bound(9000, port))
            async with asyncio.timeout(10):
                while await read_all(port):
                    pass


def watched(port: int) -> int:
    """How many established connections to that port of this machine the kernel asks, when they are silent, whether their other
    end is there: field `tr` of /proc/net/tcp is 02."""
    at = f"0100007F:{port:04X}"
    fields = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(one[1] == at and one[3] == "01" and one[5].startswith("02:") for one in fields)


async def test_a_client_that_vanishes_does_not_hold_a_connection_for_ever(tmp_path) -> None:
    port = free_port()
    async with upstreams("a") as found:
        served = model(http((rule(to("a"), inference=True),)), backends={"a": found["a"].port})
        async with proxy(tmp_path, served, bound(80, port), port) as running, running.client() as client:
            assert (await ask(client)).by == "a"
            assert watched(port) == 1


# UDP


@asynccontextmanager
async def udp_echo(name: str) -> AsyncIterator[int]:
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport) -> None:
            self.transport = transport

        def datagram_received(self, data, addr) -> None:
            self.transport.sendto(name.encode() + data, addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=(LOOPBACK, 0))
    try:
        yield transport.get_extra_info("sockname")[1]
    finally:
        transport.close()


async def udp_ask(port: int, patience: float = 1.0) -> str:
    """The answer to a datagram from a new address, nothing where there is none."""
    got: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr) -> None:
            got.set_result(data.decode())

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=(LOOPBACK, port))
    try:
        transport.sendto(b"!")
        return await asyncio.wait_for(got, patience)
    except TimeoutError:
        return ""
    finally:
        transport.close()


async def test_udp_by_weight(tmp_path) -> None:
    port = free_port()
    async with udp_echo("a") as a, udp_echo("b") as b:
        listener = UdpListener(listener_key("udp"), l4("udp", ("a", 7), ("b", 3)))
        served = with_l4(model(listener, port=53, transport="udp"), "udp", a=a, b=b)
        async with proxy(tmp_path, served, bound(53, port, transport="udp"), port):
            counts = Counter([await udp_ask(port) for _ in range(200)])
            assert 120 <= counts["a!"] <= 160
            assert 40 <= counts["b!"] <= 80


async def test_udp_to_nobody_is_dropped(tmp_path) -> None:
    port = free_port()
    async with udp_echo("a") as a:
        listener = UdpListener(listener_key("udp"), l4("udp", ("a", 1), (None, 1), ("none", 1)))
        served = with_l4(model(listener, port=53, transport="udp"), "udp", a=a, none=None)
        async with proxy(tmp_path, served, bound(53, port, transport="udp"), port) as running:
            counts = Counter(await asyncio.gather(*(udp_ask(port, 0.5) for _ in range(60))))
            assert 10 <= counts["a!"] <= 30
            only = UdpListener(listener_key("udp"), l4("udp", ("a", 1)))
            one = with_l4(model(only, port=53, transport="udp"), "udp", a=a)
            await running.show(one, bound(53, port, transport="udp"))
            async with asyncio.timeout(10):
                while await udp_ask(port) != "a!":
                    pass


# Endpoints


@pytest.mark.parametrize(
    ("prefer", "near", "far"),
    [
        (None, Endpoint("", 0, hints=("z1",)), Endpoint("", 0, hints=("z2",))),
        ("zone", Endpoint("", 0, zone="z1"), Endpoint("", 0, zone="z2")),
        ("node", Endpoint("", 0, zone="z1", node="n1"), Endpoint("", 0, zone="z1", node="n2")),
    ],
)
async def test_near_endpoints_take_everything_while_they_are_there(tmp_path, prefer, near, far) -> None:
    port = free_port()
    async with upstreams("a", "b") as found:
        here = replace(near, address=LOOPBACK, port=found["a"].port)
        there = replace(far, address=LOOPBACK, port=found["b"].port)
        backend = Backend(cluster_key("x"), "http1", prefer=prefer)
        options = bound(80, port, zone="z1", node="n1")
        base = model(http([rule(to("x"))]))
        async with proxy(tmp_path, with_backend(base, backend, here, there), options, port) as running, running.client() as c:
            assert Counter([(await ask(c)).by for _ in range(40)])["a"] >= 36  # the other helps, next to never when idle
            await running.show(with_backend(base, backend, replace(here, ready=False), there), options)
            assert {(await ask(c)).by for _ in range(10)} == {"b"}


async def test_endpoints_that_cannot_be_reached_leave_their_share_to_the_next_zone(tmp_path) -> None:
    port = free_port()
    async with upstreams("b") as found:
        dead = Endpoint(LOOPBACK, free_port(), zone="z1")
        alive = Endpoint(LOOPBACK, found["b"].port, zone="z2")
        served = with_backend(model(http([rule(to("x"))])), Backend(cluster_key("x"), "http1", prefer="zone"), dead, alive)
        async with proxy(tmp_path, served, bound(80, port, zone="z1"), port) as running, running.client() as client:
            async with asyncio.timeout(10):
                while (await ask(client)).status != 200:
                    pass
            assert [(await ask(client)).by for _ in range(20)] == ["b"] * 20  # the other one is out


async def test_endpoints_that_say_again_and_again_that_they_are_overloaded_leave_their_share_to_the_next_zone(tmp_path) -> None:
    port = free_port()
    async with upstreams("a", "b") as found:
        here = Endpoint(LOOPBACK, found["a"].port, zone="z1")
        there = Endpoint(LOOPBACK, found["b"].port, zone="z2")
        base = model(http([rule(to("x"))]))
        served = with_backend(base, Backend(cluster_key("x"), "http1", prefer="zone"), here, there)
        async with proxy(tmp_path, served, bound(80, port, zone="z1"), port) as running, running.client() as client:
            found["a"].script += [503] * 5
            async with asyncio.timeout(10):
                while found["a"].script:  # next to all requests go there
                    assert (await ask(client)).status in (200, 503)
                while (await ask(client)).by != "b":  # the main thread takes it out, a moment after a worker has counted
                    pass
            assert [(await ask(client)).by for _ in range(20)] == ["b"] * 20
            async with asyncio.timeout(20):
                while (await ask(client)).by != "a":  # it is tried again, and can
                    pass


async def test_host_names_are_resolved_while_serving(tmp_path) -> None:
    port = free_port()
    async with upstreams("a") as found:
        served = with_backend(
            model(http([rule(to("x"))])), Backend(cluster_key("x"), "http1"), Endpoint("localhost", found["a"].port)
        )
        async with proxy(tmp_path, served, bound(80, port), port) as running, running.client() as client:
            assert (await ask(client)).by == "a"


async def test_more_connections_than_allowed_are_closed(tmp_path) -> None:
    port = free_port()
    settings = ConnectionSettings(max_connections=1)
    async with upstreams("a") as found:
        served = model(http([rule(to("a"))]), backends={"a": found["a"].port})
        gateway = replace(served.gateways[GATEWAY], connections=settings)
        async with proxy(tmp_path, replace(served, gateways={GATEWAY: gateway}), bound(80, port), port):
            first, writer = await asyncio.open_connection(LOOPBACK, port)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await first.readuntil(b"\r\n\r\n")
            second, other = await asyncio.open_connection(LOOPBACK, port)
            assert await asyncio.wait_for(second.read(), 5) == b""
            other.close()
            writer.close()
