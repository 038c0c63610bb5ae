"""The cases of the Gateway API Inference Extension's suite, by the names that they have there, on a real API server: with the
controller, its proxies, and endpoint pickers as pods.

What a proxy does with what a picker says is the business of `tests/envoy/test_inferencepool.py`.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio
from tests.kubernetes.inferencepools import (
    NAMESPACE,
    PRIMARY,
    SECONDARY,
    Answer,
    Pools,
    picker,
    pool,
    pools_served,
    route,
    rule,
    servers,
)
from tests.kubernetes.installed import Installed

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

OK = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}
MANIFESTS = (
    servers("primary", 3000),
    picker("primary", 3000),
    pool("primary", 3000, of="primary", asks="primary"),
    servers("secondary", 3000),
    picker("secondary", 3000),
    pool("secondary", 3000, of="secondary", asks="secondary", failureMode="FailOpen"),
    servers("ranks", 3000, 3002, 3004),
    picker("ranks", 3000, 3002, 3004),
    pool("ranks", 3000, 3002, 3004, of="ranks", asks="ranks"),
    # On port 3001 the servers speak nothing but HTTP/2, on 3000 nothing but HTTP/1.
    picker("plain2", 3001, of="primary"),
    pool("plain2", 3001, of="primary", asks="plain2", appProtocol="kubernetes.io/h2c"),
    pool("plain1", 3000, of="primary", asks="primary", appProtocol="http"),
    # Pools for one test alone, which says who their parents are.
    pool("first", 3000, of="primary", asks="primary"),
    pool("second", 3000, of="secondary", asks="secondary"),
    pool("shared", 3000, of="primary", asks="primary"),
    pool("invalid", 3000, of="primary", asks="non-existent"),
    pool("pickerless", 3000, of="secondary", asks=None),
)
DEPLOYMENTS = ("primary", "secondary", "ranks", "primary-picker", "secondary-picker", "ranks-picker", "plain2-picker")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pools(installed_specification: Installed) -> AsyncIterator[Pools]:
    async with pools_served(installed_specification, *MANIFESTS, deployments=DEPLOYMENTS) as served:
        yield served


def pods(answers: Iterable[Answer]) -> set[str]:
    """Which pods have answered; every request must have been."""
    found = list(answers)
    assert {answer.status for answer in found} == {200}, found
    return {answer.pod for answer in found}


@contextlib.asynccontextmanager
async def without_endpoints(pools: Pools, service: str) -> AsyncIterator[None]:
    """Inside, the Service selects nobody."""

    async def selected(app: str) -> None:
        patch = f'{{"spec": {{"selector": {{"app": "{app}"}}}}}}'
        await pools.world.cluster.kubectl("patch", "service", service, "-n", NAMESPACE, "-p", patch)

    await selected("nobody")
    try:
        yield
    finally:
        await selected(service)


async def test_epp_unavailable_fail_open(pools: Pools) -> None:
    await pools.apply(route("open", rule("secondary"), gateway=SECONDARY))
    (pod, ip), *_ = (await pools.reached("open", "secondary", gateway=SECONDARY)).items()

    async def answering() -> set[str]:
        return pods(await pools.asked("open", times=20, gateway=SECONDARY, picked=[ip]))

    async def only_the_picked() -> bool:
        return await answering() == {pod}

    async def others() -> bool:
        return len(await answering()) > 1

    assert await only_the_picked()
    async with without_endpoints(pools, "secondary-picker"):
        await pools.world.cluster.eventually("other pods answer, too", others)
    await pools.world.cluster.eventually("only the picked pod answers again", only_the_picked)


async def test_gateway_destination_endpoint_served(pools: Pools) -> None:
    await pools.apply(route("served", rule("primary")))
    for pod, ip in (await pools.reached("served", "primary")).items():
        (answer,) = await pools.asked("served", picked=[ip])
        assert (answer.pod, answer.served) == (pod, f"{ip}:3000")


async def test_gateway_following_epp_routing(pools: Pools) -> None:
    await pools.apply(route("following", rule("primary")))
    ips = await pools.reached("following", "primary")
    a, b, c = ips
    for chosen in ((c,), (a, b), (a, b, c)):
        answers = await pools.asked("following", times=60, picked=[ips[pod] for pod in chosen])
        assert pods(answers) == set(chosen)


async def test_gateway_following_epp_routing_with_data_parallelism(pools: Pools) -> None:
    await pools.apply(route("parallel", rule("ranks")))
    ips = await pools.reached("parallel", "ranks")
    a, b, c = ips
    every = ("3000", "3002", "3004")
    cases = (  # ports that a pod is picked with; without any it is picked with all
        {b: ()},
        {a: (), c: ("3002",)},
        {a: (), b: ("3000", "3004"), c: ()},
    )
    for chosen in cases:
        picked = [f"{ips[pod]}:{port}" if port else ips[pod] for pod, ports in chosen.items() for port in ports or ("",)]
        answers = await pools.asked("parallel", times=60, picked=picked)
        assert pods(answers) == set(chosen)
        expected = {(pod, port) for pod, ports in chosen.items() for port in ports or every}
        assert {(answer.pod, answer.port) for answer in answers} == expected


async def test_gateway_weighted_across_two_inference_pools(pools: Pools) -> None:
    await pools.apply(route("weighted", rule(("primary", 70), ("secondary", 30))))
    primary, secondary = [await pools.reached("weighted", name, times=20) for name in ("primary", "secondary")]
    answers = await pools.asked("weighted", times=200, picked=[*primary.values(), *secondary.values()])
    assert pods(answers) == {*primary, *secondary}
    assert 110 < Counter(answer.by for answer in answers)["primary"] < 170  # 140, and 4.6 standard deviations
    assert all(answer.served == f"{primary[answer.pod]}:3000" for answer in answers if answer.by == "primary")


async def test_httproute_invalid_inferencepool_ref(pools: Pools) -> None:
    await pools.apply(route("missing", rule("non-existent")))
    await pools.told("httproute", "missing", {PRIMARY: OK | {"ResolvedRefs": ("False", "BackendNotFound")}})
    await pools.answered(500, "missing")


async def test_httproute_multiple_gateways_different_pools(pools: Pools) -> None:
    await pools.apply(route("first", rule("first")), route("second", rule("second"), gateway=SECONDARY))
    for name, gateway, other in (("first", PRIMARY, SECONDARY), ("second", SECONDARY, PRIMARY)):
        await pools.told("httproute", name, {gateway: OK})
        await pools.told("inferencepool", name, {gateway: OK})
        await pools.answered(200, name, gateway=gateway)
        (answer,) = await pools.asked(name, gateway=gateway)
        assert answer.by == gateway  # its servers are called as it is
        await pools.answered(404, name, gateway=other)


async def test_inferencepool_accepted(pools: Pools) -> None:
    await pools.apply(route("accepted", rule("ranks")))
    await pools.told("inferencepool", "ranks", {PRIMARY: OK})


async def test_inferencepool_app_protocol(pools: Pools) -> None:
    protocols = {"plain2": ("3001", "HTTP/2.0"), "plain1": ("3000", "HTTP/1.1"), "primary": ("3000", "HTTP/1.1")}
    await pools.apply(*(route(f"app-{name}", rule(name)) for name in protocols))
    for name, (port, protocol) in protocols.items():
        await pools.told("httproute", f"app-{name}", {PRIMARY: OK})
        for pod, ip in (await pools.reached(f"app-{name}", "primary")).items():
            (answer,) = await pools.asked(f"app-{name}", picked=[f"{ip}:{port}"])
            assert (answer.pod, answer.protocol, answer.served) == (pod, protocol, f"{ip}:{port}")


@pytest.mark.parametrize(("name", "port"), [("unspecified", None), ("matching", 3000), ("non-matching", 8888)])
async def test_inferencepool_httproute_port_validation(pools: Pools, name: str, port: int | None) -> None:
    await pools.apply(route(name, rule("primary", port=port)))
    await pools.told("httproute", name, {PRIMARY: OK})
    await pools.answered(200, name)


async def test_inferencepool_invalid_epp_service(pools: Pools) -> None:
    await pools.apply(route("invalid", rule("invalid")))
    await pools.told("httproute", "invalid", {PRIMARY: OK | {"ResolvedRefs": ("False", "BackendNotFound")}})
    await pools.told("inferencepool", "invalid", {PRIMARY: OK | {"ResolvedRefs": ("False", "InvalidExtensionRef")}})
    await pools.answered(500, "invalid")


async def test_inferencepool_missing_epp_ref(pools: Pools) -> None:
    """Allowed to be refused; here such a pool is served by least request."""
    await pools.apply(route("pickerless", rule("pickerless")))
    await pools.told("httproute", "pickerless", {PRIMARY: OK})
    await pools.told("inferencepool", "pickerless", {PRIMARY: OK})
    await pools.answered(200, "pickerless")

    async def all_answer() -> bool:
        return pods(await pools.asked("pickerless", times=60)) == set(await pools.ips("secondary"))

    await pools.world.cluster.eventually("all pods answer", all_answer)


async def test_httproute_multiple_rules_different_pools(pools: Pools) -> None:
    await pools.apply(route("rules", *(rule(name, path=f"/{name}") for name in ("primary", "secondary"))))
    await pools.told("httproute", "rules", {PRIMARY: OK})
    for name in ("primary", "secondary"):
        await pools.answered(200, "rules", f"/{name}")
        answers = await pools.asked("rules", f"/{name}/of", times=10)
        assert {answer.by for answer in answers} == {name}


async def test_inferencepool_resolved_refs_condition(pools: Pools) -> None:
    await pools.apply(route("of-first", rule("shared")), route("of-second", rule("shared"), gateway=SECONDARY))
    await pools.told("inferencepool", "shared", {PRIMARY: OK, SECONDARY: OK})
    for host, gateway in {"of-first": PRIMARY, "of-second": SECONDARY}.items():
        await pools.answered(200, host, gateway=gateway)
    await pools.delete_route("of-first")
    await pools.told("inferencepool", "shared", {SECONDARY: OK})
    await pools.answered(404, "of-first")
    await pools.answered(200, "of-second", gateway=SECONDARY)
    await pools.delete_route("of-second")
    await pools.told("inferencepool", "shared", {})
    await pools.answered(404, "of-second", gateway=SECONDARY)


# What the suite does not ask


async def test_a_pool_grows_and_shrinks_with_its_pods(pools: Pools) -> None:
    await pools.apply(route("growing", rule("pickerless")))
    await pools.answered(200, "growing")
    for replicas in (1, 3):
        await pools.world.cluster.kubectl("scale", "deployment/secondary", "-n", NAMESPACE, f"--replicas={replicas}")

        async def follows(wanted: int = replicas) -> bool:
            found = set(await pools.ips("secondary"))
            return len(found) == wanted and {answer.pod for answer in await pools.asked("growing", times=20)} == found

        await pools.world.cluster.eventually(f"{replicas} pods answer", follows, within=60)
