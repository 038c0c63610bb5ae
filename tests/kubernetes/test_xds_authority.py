"""Does the authority of the xDS port change without a proxy, or a request, noticing?"""

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from tests.kubernetes.installed import CONTROLLER, FLEET, SYSTEM, Installed
from tests.kubernetes.test_availability import change_of_route_arrives, load, without_failure

from gwanmun.app.demo import GATEWAY
from gwanmun.infra.authority import SERVER_NAME, Authority, renewed
from gwanmun.infra.xdstls import SECRET

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(400)]

TRUSTED_BEFORE_USE = timedelta(days=7)
LOOKS_EVERY = timedelta(minutes=1)


def authority(made: datetime) -> Authority:
    """One that was made then."""
    (draft,) = renewed((), made)  # valid from a little before, for clocks that are late
    (found,) = renewed((), made + (made - draft.made))
    return found


async def also_trusted(world: Installed, one: Authority) -> None:
    """Write it to the Secret beside those that are there, as a controller does when a successor is due."""
    data = (await world.cluster.get("secret", SECRET, SYSTEM))["data"]
    both = {"ca.crt": one.certificate, "ca.key": one.key}
    patch = {"data": {key: base64.b64encode(base64.b64decode(data[key]) + pem).decode() for key, pem in both.items()}}
    await world.cluster.kubectl("patch", "secret", SECRET, "-n", SYSTEM, "--type=merge", "-p", json.dumps(patch))


async def has_signed(one: Authority, address: str) -> bool:
    """Whether a client that trusts nobody else accepts the server; inside the cluster's network."""
    tls = ssl.create_default_context(cadata=one.certificate.decode())
    tls.set_alpn_protocols(["h2"])
    try:
        _, writer = await asyncio.open_connection(address, 18000, ssl=tls, server_hostname=SERVER_NAME)
    except ssl.SSLCertVerificationError:
        return False
    writer.close()
    return True


async def all_are_connected(world: Installed) -> None:
    async def connected() -> bool:
        return sum([await world.metric(pod, "gwanmun_xds_proxies") for pod in await world.controllers()]) == 3

    await world.rolled_out(SYSTEM, CONTROLLER)
    await world.cluster.eventually("all proxies are connected", connected, within=60)


async def other_controllers(world: Installed) -> None:
    await world.cluster.kubectl("delete", "pod", "-n", SYSTEM, *await world.controllers(), "--wait=true", "--timeout=60s")


async def test_a_successor_is_trusted_first_and_signs_then(installed_specification: Installed) -> None:
    world = installed_specification
    now = datetime.now(UTC)
    elder, later = authority(now - timedelta(days=240)), authority(now - TRUSTED_BEFORE_USE + LOOKS_EVERY * 2)
    await also_trusted(world, elder)
    await other_controllers(world)  # which begin with what is in the Secret
    await all_are_connected(world)

    async def signs(one: Authority) -> bool:
        pods = (await world.controllers()).values()
        return all([await has_signed(one, pod["status"]["podIP"]) for pod in pods])

    async def trusted() -> bool:
        config = await world.cluster.get("configmap", FLEET, GATEWAY.namespace)
        return later.certificate.decode() in config["data"]["ca.crt"]

    async with load(world) as tallies:
        assert await signs(elder)
        await also_trusted(world, later)
        await world.cluster.eventually("proxies are given the successor to trust", trusted, within=75)
        assert await signs(elder)
        await world.cluster.eventually("the successor signs", partial(signs, later), within=150)
        await other_controllers(world)  # streams outlive all this; now each proxy has to shake hands anew
        took = await change_of_route_arrives(world)
        await all_are_connected(world)
    print(f"a route change took {took:.2f} s")
    without_failure(*tallies)
