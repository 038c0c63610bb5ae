"""An API server that is slow, forgetful, busy or broken, that refuses us, and that others change at the same time.

Controllers run with the rights that the chart gives them, and behind a `front` that makes the trouble. What an API server that
is away does to traffic is the business of `test_controller` and `test_availability`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from tests.kubernetes.cluster import Cluster
from tests.kubernetes.cluster.kube import ApiError, Kube
from tests.kubernetes.front import EXPIRED, Asked, Front, Held, Instead, Late, Torn, Trouble, failure, front, response
from tests.kubernetes.test_controller import Running, of_class, served

from gwanmun.app.controller import lease_name
from gwanmun.sim.load import Load, Tally, Target, http_request

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "gwanmun"
FLEET = "serviceaccount,configmap,service,deployment,poddisruptionbudget,horizontalpodautoscaler"
OURS = "app.kubernetes.io/managed-by=gwanmun"
Manifest = dict[str, Any]


@dataclass(frozen=True)
class Plane:
    """A controller with a class of its own (`name`), the rights of its service account, and trouble in between."""

    cluster: Cluster
    name: str
    front: Front
    running: Running

    @property
    def manifests(self) -> str:
        """A Gateway `gw` of our class that serves `echo`."""
        return of_class(self.name).replace("replicas: 2", "replicas: 1")

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.running.log.read_text().splitlines() if line.startswith("{")]

    def told(self, event: str, word: str = "") -> list[dict[str, Any]]:
        """What the log has of this event, and with this word in it."""
        return [line for line in self.log() if line["event"] == event and word in json.dumps(line)]

    def no_defect(self) -> None:
        """Nothing in the log that only a mistake of ours explains."""
        text = self.running.log.read_text()
        assert "Traceback" not in text
        assert '"exception"' not in text

    def asked(self, *words: str) -> list[Asked]:
        return [asked for asked in self.front.asked if all(word in asked.target for word in words)]

    async def quiet(self, *words: str) -> None:
        """Until for two seconds nobody asked for anything with these words in it."""

        async def still() -> bool:
            before = len(self.asked(*words))
            await asyncio.sleep(2.0)
            return len(self.asked(*words)) == before

        await self.cluster.eventually(f"nobody asks for {words}", still, within=40)


@contextlib.asynccontextmanager
async def plane(
    cluster: Cluster,
    folder: Path,
    name: str,
    port: int,
    *,
    watch: Collection[str] = (),
    lacking: Collection[tuple[str, str]] = (),
) -> AsyncIterator[Plane]:
    """One that runs for as long as the block lasts. `lacking`: of which resource it lacks which right."""
    system = f"{name}-system"
    await cluster.kubectl("create", "namespace", system)
    await cluster.kubectl("apply", "-f", "-", stdin=_class_of(name))
    await grant(cluster, name, watch=watch, lacking=lacking)
    token = (await cluster.kubectl("create", "token", f"{name}-gwanmun", "-n", system, "--duration=1h")).strip()
    with front(cluster, port + 2) as between:
        config = folder / f"{name}.kubeconfig"
        config.write_text(_kubeconfig(between.server, token, system))
        arguments = (
            f"--kubeconfig={config}",
            f"--namespace={system}",
            f"--instance={system}.{name}",  # as the chart has it, whose roles grant the Lease of this name
            f"--controller-name={name}.example/gateway",
            f"--xds-address={cluster.host_address}:{port}",
            "--proxy-replicas=1",
            *(f"--watch-namespace={one}" for one in watch),
        )
        running = Running(cluster, port, folder / f"{name}.log", arguments)
        await running.start()
        try:
            yield Plane(cluster, name, between, running)
        finally:
            between.trouble = lambda _: None
            await running.end()


def _class_of(name: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: {name}}}
spec: {{controllerName: {name}.example/gateway}}
"""


def _kubeconfig(server: str, token: str, namespace: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
            "current-context": "c",
        }
    )


async def grant(cluster: Cluster, name: str, *, watch: Collection[str] = (), lacking: Collection[tuple[str, str]] = ()) -> None:
    """The chart's roles for this controller, but for what it is to lack."""
    shown = ("--show-only", "templates/rbac.yaml", "--show-only", "templates/serviceaccount.yaml")
    namespaces = f"controller.watchNamespaces={json.dumps(list(watch))}"
    text = await cluster.helm("template", name, str(CHART), "--namespace", f"{name}-system", *shown, "--set-json", namespaces)
    manifests = [one for one in yaml.safe_load_all(text) if one]
    for manifest in manifests:
        if manifest["kind"] == "ClusterRole":
            for resource, verb in lacking:
                manifest["rules"] = _without(manifest["rules"], resource, verb)
    await cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))


def _without(rules: list[Manifest], resource: str, verb: str) -> list[Manifest]:
    found = []
    for rule in rules:
        if resource in rule["resources"] and verb in rule["verbs"]:
            found.append({**rule, "resources": [resource], "verbs": [one for one in rule["verbs"] if one != verb]})
            rule = {**rule, "resources": [one for one in rule["resources"] if one != resource]}
        found.append(rule)
    return [rule for rule in found if rule["resources"] and rule["verbs"]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def folder(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For logs and kubeconfigs; the CRDs are there, too."""
    crds = [path for path in sorted((ROOT / "src/gwanmun/api/crds").glob("*.yaml")) if "gateway.networking" not in path.name]
    await cluster.kubectl("apply", "--server-side", *(f"--filename={path}" for path in crds))
    return tmp_path_factory.mktemp("troubles")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def troubled(cluster: Cluster, folder: Path) -> AsyncIterator[Plane]:
    """The controller that most tests here make trouble for."""
    async with plane(cluster, folder, "troubled", 18200) as found:
        yield found


@dataclass(frozen=True)
class Steady:
    """A Gateway that is to serve on, whatever happens."""

    plane: Plane
    namespace: str
    address: str

    async def answer(self, path: str = "/") -> tuple[str, str]:
        """The status, and what the header x-version says."""
        arguments = ("-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code},%header{x-version}")
        status, _, version = (await self.plane.cluster.run("curl", *arguments, f"http://{self.address}{path}")).partition(",")
        return status, version

    async def patch(self, version: str) -> None:
        """Let answers carry this version."""
        modifier = {
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": "x-version", "value": version}]},
        }
        patch = [{"op": "add", "path": "/spec/rules/0/filters", "value": [modifier]}]
        await self.plane.cluster.kubectl(
            "patch", "-n", self.namespace, "httproute", "echo", "--type=json", "-p", json.dumps(patch)
        )

    async def acknowledged(self) -> bool:
        """Whether the route's status is about the route as it is."""
        route = await self.plane.cluster.get("httproute", "echo", self.namespace)
        (parent,) = route["status"]["parents"]
        return {one["observedGeneration"] for one in parent["conditions"]} == {route["metadata"]["generation"]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def steady(troubled: Plane) -> AsyncIterator[Steady]:
    name = "troubles-steady"
    await troubled.cluster.kubectl("create", "namespace", name)
    yield Steady(troubled, name, await served(troubled.cluster, name, troubled.manifests))
    await troubled.cluster.kubectl("delete", "namespace", name, "--wait=false")


@contextlib.asynccontextmanager
async def no_request_fails(cluster: Cluster, address: str) -> AsyncIterator[None]:
    """A small load on new and kept connections for as long as the block lasts."""
    target = Target(address, 80, http_request("GET", "load.example", "/load"))
    with cluster.network():
        async with Load(target, connections=2, requests_per_connection=10, interval=0.02) as tally:
            await cluster.eventually("the load is under way", _holds(lambda: tally.answered >= 10))
            yield
    _check(tally)


def _check(tally: Tally) -> None:
    assert tally.failed == 0, tally.failures
    assert set(tally.statuses) <= {200}, tally.statuses


def _holds(condition: Callable[[], object]) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return bool(condition())

    return check


def passing(namespace: str) -> str:
    """A route that is to be deleted while there is trouble."""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: passing, namespace: {namespace}}}
spec:
  parentRefs: [{{name: gw}}]
  rules:
  - matches: [{{path: {{type: Exact, value: /passing}}}}]
    filters: [{{type: RequestRedirect, requestRedirect: {{path: {{type: ReplaceFullPath, replaceFullPath: /}}}}}}]
"""


def _expires(asked: Asked) -> Trouble | None:
    return Instead(EXPIRED) if asked.watches else None


BEARABLE: dict[str, Callable[[Asked], Trouble | None]] = {
    "slow": lambda _: Late(1.6),  # two of them are what a renewal of the Lease takes
    "forgetful": _expires,
}
"""What changes arrives all the same."""
UNBEARABLE: dict[str, Callable[[Asked], Trouble | None]] = {
    "busy": lambda _: Instead(
        response("429 Too Many Requests", json.dumps(failure(429, "TooManyRequests", "busy")), headers="retry-after: 1\r\n")
    ),
    "broken": lambda _: Instead(response("500 Internal Server Error", json.dumps(failure(500, "InternalError", "etcd")))),
    "a login page": lambda _: Instead(response("200 OK", "<html>Who are you?</html>", kind="text/html")),
    "cut off": lambda _: Torn(300),
}
"""What changes arrives when it is over."""


async def in_trouble(
    steady: Steady, trouble: Callable[[Asked], Trouble | None], *, meanwhile: Callable[[], Awaitable[None]]
) -> None:
    """The trouble begins, and lasts until well after `meanwhile` is over. No request of the load fails."""
    between, cluster = steady.plane.front, steady.plane.cluster
    async with no_request_fails(cluster, steady.address):
        between.trouble = trouble
        between.break_connections()
        try:
            before = between.troubled
            await cluster.eventually("there is trouble", _holds(lambda: between.troubled > before + 10))
            await meanwhile()
        finally:
            between.trouble = lambda _: None


async def changed(steady: Steady, version: str) -> None:
    await steady.patch(version)
    await steady.plane.cluster.kubectl("delete", "-n", steady.namespace, "httproute", "passing")


async def arrived(steady: Steady, version: str) -> None:
    """What `changed` did is in force and acknowledged."""

    async def in_force() -> bool:
        return await steady.answer("/passing") == ("200", version)

    await steady.plane.cluster.eventually("what changed meanwhile is in force", in_force, within=40)
    await steady.plane.cluster.eventually("the status says so", steady.acknowledged, within=40)


async def with_passing(steady: Steady) -> None:
    await steady.plane.cluster.kubectl("apply", "-f", "-", stdin=passing(steady.namespace))

    async def redirects() -> bool:
        return (await steady.answer("/passing"))[0] == "302"

    await steady.plane.cluster.eventually("the passing route is in force", redirects, within=30)


async def renewed(plane: Plane) -> None:
    """The Lease is renewed once more, by the one that has it."""

    async def at() -> str:
        lease = await plane.cluster.get("lease", lease_name(f"{plane.name}-system.{plane.name}"), f"{plane.name}-system")
        return str(lease["spec"]["renewTime"])

    before = await at()

    async def later() -> bool:
        return await at() != before

    await plane.cluster.eventually("the Lease is renewed", later, within=30)


@pytest.mark.parametrize("trouble", BEARABLE)
async def test_changes_arrive_in_spite_of_an_api_server_that_is(steady: Steady, trouble: str) -> None:
    await with_passing(steady)
    plane = steady.plane
    relists = await plane.running.metric("gwanmun_watch_relists_total")
    stepped_down = len(plane.told("not_leading"))

    async def meanwhile() -> None:
        await changed(steady, trouble)
        await arrived(steady, trouble)
        if trouble == "slow":
            for _ in range(2):
                await renewed(plane)

    await in_trouble(steady, BEARABLE[trouble], meanwhile=meanwhile)
    if trouble == "forgetful":
        assert await plane.running.metric("gwanmun_watch_relists_total") > relists + 10
    assert len(plane.told("not_leading")) == stepped_down
    steady.plane.no_defect()


@pytest.mark.parametrize("trouble", UNBEARABLE)
async def test_changes_arrive_after_an_api_server_was(steady: Steady, trouble: str) -> None:
    version = trouble.replace(" ", "-")
    await with_passing(steady)

    async def meanwhile() -> None:
        await changed(steady, version)
        before = steady.plane.front.troubled
        await steady.plane.cluster.eventually("it goes on", _holds(lambda: steady.plane.front.troubled > before + 10))

    await in_trouble(steady, UNBEARABLE[trouble], meanwhile=meanwhile)
    await arrived(steady, version)
    steady.plane.no_defect()


async def test_an_api_server_that_takes_no_statuses_holds_up_no_route_and_is_complained_of_once(steady: Steady) -> None:
    plane, cluster = steady.plane, steady.plane.cluster
    names = [f"unwritten-{number}" for number in range(20)]
    refusal = response("500 Internal Server Error", json.dumps(failure(500, "InternalError", "etcdserver: no space")))
    plane.front.trouble = lambda asked: Instead(refusal) if asked.path.endswith("/status") else None
    try:
        routes = "---".join(straying(steady.namespace, name, "echo") for name in names)
        await cluster.kubectl("apply", "-f", "-", stdin=routes)
        before = plane.front.troubled
        for name in names:
            refused = _holds(partial(plane.asked, f"/httproutes/{name}/status"))
            await cluster.eventually("its status is refused", refused, within=40)
        await cluster.eventually("it is tried again", _holds(lambda: plane.front.troubled >= before + 2 * len(names)))

        async def serves() -> bool:
            arguments = ("-sf", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"host: {names[-1]}.example.com")
            return await cluster.run("curl", *arguments, f"http://{steady.address}/") == "200"

        await cluster.eventually("they are served", serves, within=30)
    finally:
        plane.front.trouble = lambda _: None
    # Once for the routes, and once for their Gateway.
    assert len(plane.told("status_not_written", "no space")) <= 2

    async def written() -> bool:
        found = json.loads(await cluster.kubectl("get", "httproutes", "-n", steady.namespace, "-o", "json"))["items"]
        return all(ours_of(plane, one) for one in found)

    await cluster.eventually("their statuses are written", written, within=30)
    await cluster.kubectl("delete", "httproutes", "-n", steady.namespace, *names)
    plane.no_defect()


async def test_changes_arrive_over_connections_that_break_again_and_again(steady: Steady) -> None:
    await with_passing(steady)
    over = asyncio.Event()

    async def break_them() -> None:
        while not over.is_set():
            steady.plane.front.break_connections()
            await asyncio.sleep(0.7)

    async def meanwhile() -> None:
        await changed(steady, "flapping")
        await arrived(steady, "flapping")

    async with no_request_fails(steady.plane.cluster, steady.address), asyncio.TaskGroup() as tasks:
        tasks.create_task(break_them())
        try:
            await meanwhile()
        finally:
            over.set()
    steady.plane.no_defect()


# Others who write at the same time.


def straying(namespace: str, name: str, backend: str) -> str:
    """A route of its own host, so that the load is not concerned."""
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  parentRefs: [{{name: gw}}]
  hostnames: [{name}.example.com]
  rules: [{{backendRefs: [{{name: {backend}, port: 8080}}]}}]
"""


def ours_of(plane: Plane, route: Manifest) -> Manifest | None:
    """Our entry in the route's status."""
    parents = (route.get("status") or {}).get("parents", ())
    return next((one for one in parents if one["controllerName"] == f"{plane.name}.example/gateway"), None)


def reasons(parent: Manifest | None) -> set[str]:
    return {one["reason"] for one in (parent or {}).get("conditions", ())}


class OtherController:
    """Counts in the status of a route, as fast as it is let, until `over`. What it has written stands in `count`."""

    def __init__(self, plane: Plane, route: str) -> None:
        self.plane = plane
        self.route = route
        self.over = asyncio.Event()
        self.count = 0

    async def run(self) -> None:
        with self.plane.cluster.network():
            async with self.plane.cluster.client() as client:
                while not self.over.is_set():
                    with contextlib.suppress(ApiError):  # we were faster
                        await self._write(client)
                    await asyncio.sleep(0.05)

    async def _write(self, client: Kube) -> None:
        route = await client.call("GET", self.route)
        ours = [
            one for one in (route.get("status") or {}).get("parents", ()) if one["controllerName"] != "other.example/controller"
        ]
        route["status"] = {"parents": [self._entry(), *ours]}
        await client.call("PUT", f"{self.route}/status", route)
        self.count += 1

    def _entry(self) -> Manifest:
        condition = {
            "type": "Accepted",
            "status": "True",
            "reason": "Accepted",
            "message": str(self.count + 1),
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        return {"parentRef": {"name": "gw"}, "controllerName": "other.example/controller", "conditions": [condition]}


async def test_entries_of_both_are_right_although_another_controller_writes_all_the_time(steady: Steady) -> None:
    plane, cluster = steady.plane, steady.plane.cluster
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{steady.namespace}/httproutes/contended"
    await cluster.kubectl("apply", "-f", "-", stdin=straying(steady.namespace, "contended", "echo"))
    conflicts = await plane.running.metric("gwanmun_status_conflicts_total")
    # Long enough on its way for the other to be faster.
    plane.front.trouble = lambda asked: Late(0.3) if asked.path == f"{path}/status" else None
    other = OtherController(plane, path)
    writing = asyncio.create_task(other.run())
    try:

        async def contended() -> bool:
            return await plane.running.metric("gwanmun_status_conflicts_total") >= conflicts + 2

        await cluster.kubectl("apply", "-f", "-", stdin=straying(steady.namespace, "contended", "nobody"))
        await cluster.eventually("our writes come too late", contended, within=40)
        plane.front.trouble = lambda _: None

        async def told() -> bool:
            return "BackendNotFound" in reasons(ours_of(plane, await cluster.get("httproute", "contended", steady.namespace)))

        await cluster.eventually("our entry is right all the same", told, within=40)
    finally:
        plane.front.trouble = lambda _: None
        other.over.set()
        await writing
    route = await cluster.get("httproute", "contended", steady.namespace)
    theirs, ours = route["status"]["parents"]
    assert theirs["conditions"][0]["message"] == str(other.count)
    assert reasons(ours) == {"Accepted", "BackendNotFound"}
    await cluster.kubectl("delete", "-n", steady.namespace, "httproute", "contended")
    plane.no_defect()


# What is deleted while we are at it.


def gateway(plane: Plane, name: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: {name}}}
spec:
  gatewayClassName: {plane.name}
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{name: {name}}}]
  rules: [{{}}]
"""


def held(plane: Plane, namespace: str, *objects: str) -> dict[str, Held]:
    """From now on the writes of these objects of the namespace wait, each "deployments/NAME"."""
    found = {f"/namespaces/{namespace}/{one}": Held() for one in objects}
    plane.front.trouble = lambda asked: (
        next((gate for path, gate in found.items() if asked.path.endswith(path)), None) if asked.method == "PATCH" else None
    )
    return found


async def reached(plane: Plane, gates: dict[str, Held]) -> None:
    for path, gate in gates.items():
        await plane.cluster.eventually(f"{path} is written", _holds(gate.reached.is_set), within=40)


def let_go(plane: Plane, gates: dict[str, Held]) -> None:
    plane.front.trouble = lambda _: None
    for gate in gates.values():
        gate.opened.set()


async def test_nothing_is_left_of_gateways_that_are_deleted_while_their_fleets_are_applied(
    troubled: Plane, namespace: str
) -> None:
    cluster, names = troubled.cluster, ("first", "second", "third")
    gates = held(
        troubled,
        namespace,
        f"serviceaccounts/first-{troubled.name}",
        f"deployments/second-{troubled.name}",
        f"services/third-{troubled.name}",
    )
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin="---".join(gateway(troubled, name) for name in names))
    await reached(troubled, gates)
    await cluster.kubectl("delete", "-n", namespace, "httproute,gateway", "--all")
    let_go(troubled, gates)
    await troubled.quiet(f"/namespaces/{namespace}/")

    async def nothing() -> bool:
        return not await cluster.kubectl("get", FLEET, "-n", namespace, "-l", OURS, "-o", "name")

    await cluster.eventually("nothing is left", nothing, within=60)
    troubled.no_defect()


async def test_a_namespace_that_ends_is_let_go(steady: Steady) -> None:
    """Somebody's finalizer keeps its Gateway for a while, for which we could go on trying."""
    plane, cluster, namespace = steady.plane, steady.plane.cluster, "troubles-ending"
    lines = len(plane.log())
    gates = held(plane, namespace, f"deployments/gw-{plane.name}")
    await cluster.kubectl("create", "namespace", namespace)
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=gateway(plane, "gw"))
    await cluster.kubectl("patch", "-n", namespace, "gateway", "gw", "--type=merge", "-p", _finalizers("example.com/keep"))
    await reached(plane, gates)
    async with no_request_fails(cluster, steady.address):
        await cluster.kubectl("delete", "namespace", namespace, "--wait=false")

        async def ends() -> bool:
            return (await cluster.get("namespace", namespace))["status"]["phase"] == "Terminating"

        await cluster.eventually("the namespace ends", ends)
        let_go(plane, gates)
        told = _holds(lambda: bool(plane.told("fleet_not_applied", f"namespace {namespace} because it is being terminated")))
        await cluster.eventually("what cannot be made is told", told)
        tried = len(plane.asked(f"/namespaces/{namespace}/deployments/"))
        again = _holds(lambda: len(plane.asked(f"/namespaces/{namespace}/deployments/")) > tried)
        await cluster.eventually("it is tried again", again)
        await steady.patch("meanwhile")

        async def in_force() -> bool:
            return await steady.answer() == ("200", "meanwhile")

        await cluster.eventually("others are served", in_force, within=30)
        made = await cluster.kubectl("get", FLEET, "-n", namespace, "-l", OURS, "-o", "name")
        assert "deployment" not in made
        await cluster.kubectl("patch", "-n", namespace, "gateway", "gw", "--type=merge", "-p", _finalizers())

        async def gone() -> bool:
            return namespace not in await cluster.kubectl("get", "namespaces", "-o", "name")

        await cluster.eventually("the namespace is gone", gone, within=30)
    await plane.quiet(f"/namespaces/{namespace}/")
    new = [line for line in plane.log()[lines:] if namespace in json.dumps(line)]
    assert len(new) == 1, "once for all of its objects"
    plane.no_defect()


def _finalizers(*names: str) -> str:
    return json.dumps({"metadata": {"finalizers": list(names)}})


# How many proxies there are is for the autoscaler to say.


def scaled_class(plane: Plane) -> str:
    return f"""
apiVersion: gwanmun.dev/v1alpha1
kind: GatewayClassConfig
metadata: {{name: {plane.name}-scaled}}
spec: {{proxy: {{replicas: 2}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: {plane.name}-scaled}}
spec:
  controllerName: {plane.name}.example/gateway
  parametersRef: {{group: gwanmun.dev, kind: GatewayClassConfig, name: {plane.name}-scaled}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw}}
spec:
  gatewayClassName: {plane.name}-scaled
  listeners: [{{name: http, port: 80, protocol: HTTP}}]
"""


async def test_the_number_of_proxies_stays_what_an_autoscaler_or_a_person_made_it(troubled: Plane, namespace: str) -> None:
    cluster, name = troubled.cluster, f"gw-{troubled.name}-scaled"
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=scaled_class(troubled))

    async def deployment() -> Manifest:
        return await cluster.get("deployment", name, namespace)

    async def there() -> bool:
        return bool((await deployment())["spec"]["replicas"] == 2)

    await cluster.eventually("there is a Deployment of two", there, within=40)
    config = ("gatewayclassconfigs.gwanmun.dev", f"{troubled.name}-scaled", "--type=merge", "-p")
    scaling = {"spec": {"proxy": {"autoscaling": {"minReplicas": 1, "maxReplicas": 4}}}}
    await cluster.kubectl("patch", *config, json.dumps(scaling))

    async def scaler() -> Manifest:
        return await cluster.get("horizontalpodautoscaler", name, namespace)

    found = await cluster.eventually("there is an autoscaler", scaler, within=40)
    assert found["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    assert (found["spec"]["minReplicas"], found["spec"]["maxReplicas"]) == (1, 4)
    assert (await deployment())["spec"]["replicas"] == 2, "what was there before it"
    await cluster.kubectl("scale", "-n", namespace, f"deployment/{name}", "--replicas=3")
    label = {"spec": {"infrastructure": {"labels": {"team": "red"}}}}
    await cluster.kubectl("patch", "-n", namespace, "gateway", "gw", "--type=merge", "-p", json.dumps(label))

    async def applied() -> bool:
        return (await deployment())["metadata"]["labels"].get("team") == "red"

    await cluster.eventually("the Deployment is applied again", applied, within=40)
    assert (await deployment())["spec"]["replicas"] == 3
    await cluster.kubectl("patch", *config, json.dumps({"spec": {"proxy": {"autoscaling": None}}}))

    async def without() -> bool:
        left = await cluster.kubectl("get", "horizontalpodautoscaler", "-n", namespace, "-o", "name")
        return not left and await there()

    await cluster.eventually("without an autoscaler it is as many as the class says", without, within=40)
    await cluster.kubectl("delete", "-n", namespace, "gateway", "gw")
    troubled.no_defect()


# What people see.


async def events(cluster: Cluster, namespace: str, kind: str, name: str) -> list[tuple[str, str, str]]:
    """Of every Event of ours about the object: its type, its reason and its message."""
    selector = f"involvedObject.kind={kind},involvedObject.name={name}"
    found = json.loads(await cluster.kubectl("get", "events", "-n", namespace, f"--field-selector={selector}", "-o", "json"))
    return [(one["type"], one["reason"], one["message"]) for one in found["items"] if "gwanmun" in one["source"]["component"]]


async def test_an_event_tells_once_what_a_person_should_see(steady: Steady) -> None:
    plane, cluster = steady.plane, steady.plane.cluster
    await cluster.kubectl("apply", "-f", "-", stdin=straying(steady.namespace, "astray", "nobody"))

    async def told() -> list[tuple[str, str, str]]:
        return await events(cluster, steady.namespace, "HTTPRoute", "astray")

    ((kind, reason, message),) = await cluster.eventually("there is an Event", told, within=30)
    assert (kind, reason) == ("Warning", "BackendNotFound")
    assert "nobody" in message
    of_gateway = await events(cluster, steady.namespace, "Gateway", "gw")
    assert [(kind, reason) for kind, reason, _ in of_gateway].count(("Normal", "Programmed")) == 1
    relists = await plane.running.metric("gwanmun_watch_relists_total")
    plane.front.trouble = _expires
    plane.front.break_connections()

    async def listed_again() -> bool:
        return await plane.running.metric("gwanmun_watch_relists_total") > relists + 20

    try:
        await cluster.eventually("everything is listed again", listed_again)
    finally:
        plane.front.trouble = lambda _: None
    await plane.running.end()
    await plane.running.start()
    # Another condition of another route shows that Events are written again.
    await cluster.kubectl("apply", "-f", "-", stdin=straying(steady.namespace, "later", "nobody"))

    async def later() -> bool:
        return bool(await events(cluster, steady.namespace, "HTTPRoute", "later"))

    await cluster.eventually("later Events are told", later, within=30)
    assert await told() == [(kind, reason, message)]
    assert await events(cluster, steady.namespace, "Gateway", "gw") == of_gateway
    await cluster.kubectl("delete", "-n", steady.namespace, "httproute", "astray", "later")
    plane.no_defect()


# Rights.


CLUSTER_WIDE = {"namespaces", "nodes", "gatewayclasses", "gatewayclassconfigs", "tokenreviews", "customresourcedefinitions"}
"""What belongs to no namespace."""


async def test_a_controller_of_two_namespaces_serves_them_and_looks_at_no_other(
    cluster: Cluster, folder: Path, namespace: str
) -> None:
    watched, outside = (f"{namespace[:40]}-a", f"{namespace[:40]}-b"), namespace
    for one in watched:
        await cluster.kubectl("create", "namespace", one)
    async with plane(cluster, folder, "narrow", 18300, watch=watched) as narrow:
        await cluster.kubectl("apply", "-n", outside, "-f", "-", stdin=narrow.manifests)
        first, second = watched
        await cluster.kubectl("apply", "-n", second, "-f", "-", stdin=gateway(narrow, "gw"))
        await served(cluster, first, narrow.manifests)
        assert ours_of(narrow, await cluster.get("httproute", "echo", first)) is not None
        assert ours_of(narrow, await cluster.get("httproute", "gw", second)) is not None
        assert ours_of(narrow, await cluster.get("httproute", "echo", outside)) is None
        conditions = (await cluster.get("gateway", "gw", outside))["status"]["conditions"]
        assert {one["reason"] for one in conditions} == {"Pending"}, "as the API server has made it"
        assert not await cluster.kubectl("get", FLEET, "-n", outside, "-l", OURS, "-o", "name")
        elsewhere = {
            asked.path for asked in narrow.front.asked if not any(f"/namespaces/{one}/" in asked.path for one in watched)
        }
        rest = {path for path in elsewhere if not set(path.split("/")) & CLUSTER_WIDE and "/narrow-system/" not in path}
        assert not rest
        assert not [path for path in elsewhere if f"/{outside}/" in path]
        assert not [line for line in narrow.log() if "grant" in line or line["level"] == "error"]
        narrow.no_defect()
        for one in watched:
            await cluster.kubectl("delete", "gateway", "gw", "-n", one)
            await cluster.kubectl("delete", "namespace", one, "--wait=false")


async def test_a_right_that_is_missing_is_named_and_all_is_well_when_it_is_granted(
    cluster: Cluster, folder: Path, namespace: str
) -> None:
    lacking = (("httproutes/status", "patch"), ("deployments", "create"), ("secrets", "list"), ("events", "create"))
    async with plane(cluster, folder, "lacking", 18400, lacking=lacking) as found:
        await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=found.manifests)

        async def named() -> bool:
            return all(
                any(part in str(line.get("grant")) for line in found.told(event))
                for event, part in (
                    ("status_not_written", 'resources: ["httproutes/status"], verbs: ["patch"]'),
                    ("fleet_not_applied", 'apiGroups: ["apps"], resources: ["deployments"], verbs: ["create", "patch"]'),
                    ("events_refused", 'apiGroups: [""], resources: ["events"], verbs: ["create"]'),
                    ("access_refused", 'resources: ["secrets"], verbs: ["list", "watch"]'),
                )
            )

        await cluster.eventually("the log names what is missing", named, within=30)

        async def programmed() -> Manifest:
            conditions = (await cluster.get("gateway", "gw", namespace))["status"]["conditions"]
            return next(one for one in conditions if one["type"] == "Programmed")

        async def said() -> bool:
            return "grant the controller" in (await programmed())["message"]

        await cluster.eventually("the Gateway says so, too", said, within=30)
        made = await cluster.kubectl("get", FLEET, "-n", namespace, "-l", OURS, "-o", "name")
        assert "service/" in made, "all else goes on"
        assert "poddisruptionbudget" in made
        assert ours_of(found, await cluster.get("httproute", "echo", namespace)) is None
        await grant(cluster, found.name, lacking=[one for one in lacking if one != ("deployments", "create")])
        address = await served(cluster, namespace, found.manifests)
        async with no_request_fails(cluster, address):
            await grant(cluster, found.name)

            async def healed() -> bool:
                route = await cluster.get("httproute", "echo", namespace)
                return ours_of(found, route) is not None and bool(found.told("watch_restored", "secrets"))

            await cluster.eventually("what was refused is done", healed, within=45)
        assert (await programmed())["status"] == "True"
        assert len([line for line in found.log() if "grant" in line]) <= 6, "once each"
        found.no_defect()
        await cluster.kubectl("delete", "-n", namespace, "gateway", "gw")
