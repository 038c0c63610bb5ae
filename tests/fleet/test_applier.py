"""The controller's part in applying: only the leader does, everything that it should, and the Gateway hears of problems."""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from fleet.test_apply import Api, objects
from fleet.test_certificates import owner
from gwanmun.api import Object
from gwanmun.api.references import GATEWAY_GROUP
from gwanmun.app import applying
from gwanmun.app.applying import Applier, Objects
from gwanmun.infra.fleet.apply import Hindrance, Owner, Problem
from gwanmun.infra.fleet.certificates import Issuer, certificates_for
from gwanmun.infra.fleet.contract import PROVISIONAL
from gwanmun.infra.fleet.objects import OF_PARAMETERS, provisional
from gwanmun.infra.fleet.owners import given_up
from gwanmun.kube import ApiError, manifest_path
from gwanmun.names import NamespacedName, ObjectKey

GW = NamespacedName("ai", "gw")
INSTANCE = "gwanmun-system.gwanmun"
CLASS = f"/apis/{GATEWAY_GROUP}/v1/gatewayclasses/gwanmun"


class Cluster(Api):
    """An API server that has Gateways, too. `refuses` is what it says of them and of their classes instead."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: ApiError | None = None
        self.asked: list[str] = []

    async def get(self, path: str, **parameters: str) -> Any:
        self.asked.append(path.rpartition("/")[2])
        if self.refuses is not None and path.startswith(f"/apis/{GATEWAY_GROUP}/"):
            raise self.refuses
        return await super().get(path, **parameters)

    def put_gateway(self, controller: str) -> None:
        for path, kind, spec in (
            ("namespaces/ai/gateways/gw", "Gateway", {"gatewayClassName": "gwanmun"}),
            ("gatewayclasses/gwanmun", "GatewayClass", {"controllerName": controller}),
        ):
            self.objects[f"/apis/{GATEWAY_GROUP}/v1/{path}"] = {"kind": kind, "metadata": {}, "spec": spec}


class Desk:
    """What Gateways are to have, and which of them were troubled."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.wanted: dict[NamespacedName, tuple[dict[str, Any], ...]] = {}
        self.troubled: list[NamespacedName] = []
        self.hindrance: Problem | None = None
        self.applier = Applier(
            api,
            self._wanted_of,
            instance=INSTANCE,
            hindrance=lambda _: Hindrance(self.hindrance, OF_PARAMETERS) if self.hindrance is not None else None,
            troubled=self.troubled.append,
            given_up=partial(given_up, api, controllers=("gwanmun.dev/controller",)),
        )

    def _wanted_of(self, gateway: NamespacedName) -> Objects | None:
        found = self.wanted.get(gateway)
        if found == ():
            raise TypeError("a defect")
        return None if found is None else _by_owner(found)

    def want(self, gateway: NamespacedName, wanted: tuple[dict[str, Any], ...] | None) -> None:
        self.wanted.pop(gateway, None)
        if wanted is not None:
            self.wanted[gateway] = wanted
        self.applier.touch(gateway)

    async def make_with_certificates(self) -> None:
        """The proxies of a Gateway, and Certificates for the listeners of a ListenerSet."""
        certificates = certificates_for([owner("ListenerSet")], Issuer("acme"), instance=INSTANCE)
        self.want(GW, (*objects(), *certificates))
        self.applier.lead(True)
        await self.until(["Certificate", "Certificate", *EVERYTHING], self.api.kinds)

    async def until(self, expected: Any, seen: Any) -> None:
        async with asyncio.timeout(5):
            while seen() != expected:  # noqa: ASYNC110  an API server tells nobody either
                await asyncio.sleep(0.005)


def _by_owner(objects: tuple[dict[str, Any], ...]) -> Objects:
    found: dict[Owner, list[dict[str, Any]]] = {}
    for manifest in objects:
        reference = manifest["metadata"]["ownerReferences"][0]
        found.setdefault(Owner(reference["kind"], "ai", reference["name"]), []).append(manifest)
    return found


@asynccontextmanager
async def desk(api: Api) -> AsyncIterator[Desk]:
    found = Desk(api)
    task = asyncio.create_task(found.applier.run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


EVERYTHING = ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"]


async def test_only_the_leader_applies() -> None:
    api = Api()
    async with desk(api) as follower, desk(api) as leader:
        for one in (follower, leader):
            one.want(GW, objects())
        leader.applier.lead(True)
        await leader.until(EVERYTHING, api.kinds)
        assert follower.applier.stats.applied == 0
        assert leader.applier.stats.applied == 5


async def test_a_new_leader_takes_away_what_nobody_wants_any_more() -> None:
    api = Api()
    async with desk(api) as first:
        first.want(GW, objects())
        first.applier.lead(True)
        await first.until(EVERYTHING, api.kinds)
    async with desk(api) as second:
        second.applier.lead(True)
        await second.until([], api.kinds)


async def a_fleet_on(api: Api) -> None:
    async with desk(api) as first:
        first.want(GW, objects())
        first.applier.lead(True)
        await first.until(EVERYTHING, lambda: fleet_kinds(api))


def fleet_kinds(api: Api) -> list[str]:
    return [kind for kind in api.kinds() if kind not in ("Gateway", "GatewayClass", "ListenerSet")]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        pytest.param(403, "Forbidden", id="refused"),
        pytest.param(401, "Unauthorized", id="unknown to it"),
        pytest.param(404, "", id="the CRD is missing"),
        pytest.param(500, "InternalError", id="broken"),
    ],
)
async def test_who_cannot_read_gateways_takes_nothing_away(code: int, reason: str) -> None:
    api = Cluster()
    await a_fleet_on(api)
    api.refuses = ApiError(code, reason, "no")
    async with desk(api) as second:  # it knows of no Gateway at all
        second.applier.lead(True)
        with capture_logs() as logs:
            await second.until(True, lambda: any("cannot tell whether Gateway ai/gw" in str(entry) for entry in logs))
        second.want(GW, None)
        await second.until([GW], lambda: second.troubled)
        assert fleet_kinds(api) == EVERYTHING
        api.refuses = None
        await second.until([], lambda: fleet_kinds(api))


async def test_who_may_not_read_gateways_or_their_classes_says_what_to_grant() -> None:
    api = Cluster()
    await a_fleet_on(api)
    api.put_gateway("gwanmun.dev/controller")
    api.refuses = ApiError(403, "Forbidden", 'gateways "gw" is forbidden: User "us" cannot get resource "gateways"')
    async with desk(api) as second:
        second.want(GW, None)
        with capture_logs() as logs:
            second.applier.lead(True)
            await second.until([GW], lambda: second.troubled)
        (kept,) = second.applier.problems(GW)
        assert kept.grant == 'apiGroups: ["gateway.networking.k8s.io"], resources: ["gateways"], verbs: ["get"]'
        assert {entry["grant"] for entry in logs if entry["event"] == "fleet_not_applied"} == {kept.grant}
    gateway = api.objects[f"/apis/{GATEWAY_GROUP}/v1/namespaces/ai/gateways/gw"]

    class OfClasses(Cluster):
        async def get(self, path: str, **parameters: str) -> Any:
            return gateway if "/gateways/" in path else await super().get(path, **parameters)

    blind = OfClasses()
    for said, grant in (
        (
            str(api.refuses),
            'apiGroups: ["gateway.networking.k8s.io"], resources: ["gatewayclasses"], verbs: ["get"] in a ClusterRole',
        ),
        ("an admission webhook says no", None),
    ):
        blind.refuses = ApiError(403, "Forbidden", said)
        assert await given_up(blind, Owner("Gateway", *GW), ["gwanmun.dev/controller"]) == Problem(said, grant, serving=False)


async def test_a_gateway_that_is_there_keeps_its_proxies_while_its_class_is_ours() -> None:
    api = Cluster()
    await a_fleet_on(api)
    api.put_gateway("gwanmun.dev/controller")
    async with desk(api) as second:  # it does not know of this Gateway, whatever the reason
        second.applier.lead(True)
        await second.until(True, lambda: "gwanmun" in api.asked)  # its class: nobody else is called so
        second.want(GW, None)
        await second.until([GW], lambda: second.troubled)
        assert fleet_kinds(api) == EVERYTHING


async def test_a_gateway_of_another_controllers_class_loses_its_proxies() -> None:
    api = Cluster()
    await a_fleet_on(api)
    api.put_gateway("another.dev/controller")
    async with desk(api) as second:
        second.applier.lead(True)
        await second.until([], lambda: fleet_kinds(api))


async def test_a_gateway_keeps_its_proxies_while_its_class_is_missing() -> None:
    api = Cluster()
    await a_fleet_on(api)
    api.put_gateway("gwanmun.dev/controller")
    del api.objects[CLASS]
    async with desk(api) as second:
        second.applier.lead(True)
        await second.until(True, lambda: "gwanmun" in api.asked)
        second.want(GW, None)
        await second.until([GW], lambda: second.troubled)
        (problem,) = second.applier.problems(GW)
        assert "its class does not exist" in problem.message
        assert fleet_kinds(api) == EVERYTHING
        api.put_gateway("another.dev/controller")
        await second.until([], lambda: fleet_kinds(api))


async def test_a_gateway_on_its_way_has_given_up_and_one_without_its_class_has_not() -> None:
    api = Cluster()
    api.put_gateway("gwanmun.dev/controller")
    owner = Owner("Gateway", *GW)
    assert await given_up(api, owner, ["gwanmun.dev/controller"]) is False
    del api.objects[CLASS]
    assert await given_up(api, owner, ["gwanmun.dev/controller"]) is False
    api.put_gateway("gwanmun.dev/controller")
    api.objects[f"/apis/{GATEWAY_GROUP}/v1/namespaces/ai/gateways/gw"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert await given_up(api, owner, ["gwanmun.dev/controller"]) is True


async def test_an_older_version_is_asked_where_the_newest_is_not_served() -> None:
    class Old(Cluster):
        async def get(self, path: str, **parameters: str) -> Any:
            if path.startswith(f"/apis/{GATEWAY_GROUP}/v1/"):
                raise ApiError(404, "", "404 page not found")
            return await super().get(path.replace("/v1beta1/", "/v1/"), **parameters)

    api = Old()
    assert await given_up(api, Owner("Gateway", *GW), ["gwanmun.dev/controller"]) is True
    api.put_gateway("gwanmun.dev/controller")
    assert await given_up(api, Owner("Gateway", *GW), ["gwanmun.dev/controller"]) is False


async def test_a_defect_in_working_out_one_gateway_harms_no_other() -> None:
    api = Api()
    async with desk(api) as one:
        broken = NamespacedName("ai", "broken")
        one.want(broken, ())
        one.want(GW, objects())
        one.applier.lead(True)
        await one.until(EVERYTHING, api.kinds)
        (problem,) = one.applier.problems(broken)
        assert "a defect" in problem.message


async def test_what_somebody_deleted_is_made_again_at_once() -> None:
    api = Api()
    async with desk(api) as one:
        one.want(GW, objects())
        one.applier.lead(True)
        await one.until(EVERYTHING, api.kinds)
        for key, found in api.made().items():
            one.applier.notice({key: found})
        await asyncio.sleep(0.02)
        assert len(api.log) == 5, "what is as it was applied is left alone"
        gone = dict.fromkeys(api.made())
        api.objects.clear()
        api.managers.clear()
        one.applier.notice(gone)
        await one.until(EVERYTHING, api.kinds)


async def test_a_deleted_certificate_of_a_listener_set_is_made_again() -> None:
    api = Api()
    async with desk(api) as one:
        await one.make_with_certificates()
        gone: dict[ObjectKey, Object | None] = {key: None for key in api.made() if key.kind == "Certificate"}
        api.objects = {path: found for path, found in api.objects.items() if found["kind"] != "Certificate"}
        one.applier.notice(gone)
        await one.until(["Certificate", "Certificate", *EVERYTHING], api.kinds)


async def test_who_undoes_it_again_and_again_is_answered_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "_PAUSES_S", (0.0, 0.0, 0.0, 0.1, 60.0))
    api = Api()
    config_map = manifest_path(objects()[1])
    async with desk(api) as one:
        one.want(GW, objects())
        one.applier.lead(True)
        await one.until(EVERYTHING, api.kinds)
        api.log.clear()
        with capture_logs() as logs:
            for _ in range(100):  # for a second
                if api.objects[config_map]["data"] != {"ca.crt": "(theirs)"}:
                    api.edit(config_map, "data", "ca.crt", "(theirs)")
                    one.applier.notice(dict(api.made()))
                await asyncio.sleep(0.01)
        assert [path for _, path in api.log] == [config_map] * 4
        (told,) = (entry for entry in logs if entry["event"] == "fleet_contested")
        assert "ConfigMap" in told["object"]


async def test_a_gateway_that_is_no_longer_ours_loses_its_proxies() -> None:
    api = Api()
    async with desk(api) as one:
        one.want(GW, objects())
        one.applier.lead(True)
        await one.until(EVERYTHING, api.kinds)
        one.want(GW, None)
        await one.until([], api.kinds)


async def test_certificates_of_a_listener_set_go_with_it() -> None:
    api = Api()
    async with desk(api) as one:
        await one.make_with_certificates()
        one.want(GW, objects())
        await one.until(EVERYTHING, api.kinds)


async def test_the_gateway_hears_of_a_missing_right_and_of_its_end() -> None:
    api = Api()
    api.forbidden = {"services"}
    async with desk(api) as one:
        one.want(GW, objects())
        one.applier.lead(True)
        await one.until([GW], lambda: one.troubled)
        (problem,) = one.applier.problems(GW)
        assert problem.grant == 'apiGroups: [""], resources: ["services"], verbs: ["create", "patch"]'
        api.forbidden = set()
        await one.until([GW, GW], lambda: one.troubled)
        assert one.applier.problems(GW) == ()
        assert api.kinds() == EVERYTHING


async def test_parameters_that_cannot_be_read_leave_proxies_as_they_are() -> None:
    api = Api()
    async with desk(api) as first:
        first.want(GW, objects("overrides"))
        first.applier.lead(True)
        await first.until(True, lambda: "HorizontalPodAutoscaler" in api.kinds() and "ServiceAccount" in api.kinds())
        await asyncio.sleep(0.05)
    before = copy.deepcopy(api.objects)
    async with desk(api) as second:  # it knows nothing of the parameters, and an authority of its own
        second.hindrance = Problem("GatewayClassConfig edge cannot be read", "list them", serving=False)
        by_defaults = provisional(of_gateway(before, objects("defaults")))
        by_defaults[1]["data"] = {"ca.crt": "(renewed)"}
        second.want(GW, by_defaults)
        with capture_logs() as logs:
            second.applier.lead(True)
            await second.until([GW], lambda: second.troubled)
        changed = {one["kind"] for path, one in api.objects.items() if one != before.get(path)}
        assert before.keys() <= api.objects.keys()
        assert changed <= {"ServiceAccount", "ConfigMap", "PodDisruptionBudget"}
        assert "ConfigMap" in changed
        assert [one["grant"] for one in logs if one["event"] == "fleet_not_applied"] == ["list them"]
        second.hindrance = None
        second.want(GW, of_gateway(before, objects("overrides")))
        await second.until([GW, GW], lambda: second.troubled)
        assert second.applier.problems(GW) == ()


def of_gateway(there: dict[str, Any], made: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """The same objects, for the Gateway that has those that are there."""
    example = next(iter(there.values()))["metadata"]
    for one in made:
        one["metadata"]["name"] = example["name"]
        one["metadata"]["namespace"] = example["namespace"]
        one["metadata"]["ownerReferences"] = example["ownerReferences"]
    return made


async def test_without_its_parameters_a_new_gateway_gets_defaults_that_may_change() -> None:
    api = Api()
    async with desk(api) as one:
        one.hindrance = Problem("GatewayClassConfig edge cannot be read", serving=False)
        one.want(GW, provisional(objects()))
        one.applier.lead(True)
        await one.until(EVERYTHING, api.kinds)
        ports = provisional(objects())
        service = next(found for found in ports if found["kind"] == "Service")
        service["spec"]["ports"][0]["port"] = 8081
        one.want(GW, ports)
        await one.until(
            8081, lambda: next(o for o in api.objects.values() if o["kind"] == "Service")["spec"]["ports"][0]["port"]
        )
        one.hindrance = None
        one.want(GW, objects())
        await one.until([], lambda: [o for o in api.objects.values() if PROVISIONAL in o["metadata"].get("annotations", {})])


async def test_however_often_it_is_touched_a_gateway_in_trouble_is_tried_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "_RETRY_S", (0.2, 0.2))
    api = Api()
    api.forbidden = {"deployments"}
    async with desk(api) as one:
        one.applier.lead(True)
        one.want(GW, objects())
        for _ in range(20):
            one.applier.touch(GW)
            await asyncio.sleep(0.005)
        tried = len(api.log)
        await asyncio.sleep(0.3)  # time for one
        assert len(api.log) - tried in (1, 2)


async def test_a_right_that_is_lost_again_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(applying, "_RETRY_S", (0.02, 0.02))
    api = Api()
    async with desk(api) as one:
        one.applier.lead(True)
        with capture_logs() as logs:
            for times in (1, 2):
                api.forbidden = {"services"}
                changed = objects()
                next(found for found in changed if found["kind"] == "Service")["spec"]["ports"][0]["port"] = 8080 + times
                one.want(GW, changed)
                await one.until(2 * times - 1, lambda: len(one.troubled))
                tried = len(api.log)
                await one.until(True, lambda tried=tried: len(api.log) > tried + 3)
                assert len([entry for entry in logs if entry["event"] == "fleet_not_applied"]) == times
                api.forbidden = set()
                await one.until(2 * times, lambda: len(one.troubled))
