"""The controller's part in applying: only the leader does, everything that it should, and the Gateway hears of problems."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fleet.test_apply import Api, objects
from fleet.test_certificates import owner
from gwanmun.app.applying import Applier, Objects
from gwanmun.infra.fleet.certificates import Issuer, certificates_for
from gwanmun.names import NamespacedName

GW = NamespacedName("ai", "gw")
INSTANCE = "gwanmun-system.gwanmun"


class Desk:
    """What Gateways are to have, and which of them were troubled."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.wanted: dict[NamespacedName, Objects] = {}
        self.troubled: list[NamespacedName] = []
        self.sees_all = True
        self.applier = Applier(
            api, self._wanted_of, instance=INSTANCE, troubled=self.troubled.append, sees_all=lambda: self.sees_all
        )

    def _wanted_of(self, gateway: NamespacedName) -> Objects | None:
        found = self.wanted.get(gateway)
        if found == ():
            raise TypeError("a defect")
        return found

    def want(self, gateway: NamespacedName, wanted: Objects | None) -> None:
        self.wanted.pop(gateway, None)
        if wanted is not None:
            self.wanted[gateway] = wanted
        self.applier.touch(gateway)

    async def until(self, expected: Any, seen: Any) -> None:
        async with asyncio.timeout(5):
            while seen() != expected:  # noqa: ASYNC110  an API server tells nobody either
                await asyncio.sleep(0.005)


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


async def test_who_cannot_read_gateways_takes_nothing_away() -> None:
    api = Api()
    async with desk(api) as first:
        first.want(GW, objects())
        first.applier.lead(True)
        await first.until(EVERYTHING, api.kinds)
        first.sees_all = False
        first.want(GW, None)
        await first.until([GW], lambda: first.troubled)
        assert api.kinds() == EVERYTHING
    async with desk(api) as second:
        second.sees_all = False
        other = NamespacedName("ai", "other")
        second.want(other, ())
        second.applier.lead(True)
        await second.until([other], lambda: second.troubled)  # it has worked, and would have swept after that
        assert api.kinds() == EVERYTHING
        second.sees_all = True
        second.applier.lead(True)
        await second.until([], api.kinds)


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


async def test_what_somebody_deleted_is_made_again() -> None:
    api = Api()
    async with desk(api) as one:
        one.want(GW, objects())
        one.applier.lead(True)
        await one.until(EVERYTHING, api.kinds)
        for path in [path for path in api.objects if "/services/" in path]:
            del api.objects[path]
        one.applier.look_again(GW)
        await one.until(EVERYTHING, api.kinds)


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
    certificates = certificates_for(owner("ListenerSet"), Issuer("acme"), instance=INSTANCE)
    async with desk(api) as one:
        one.want(GW, (*objects(), *certificates))
        one.applier.lead(True)
        await one.until(["Certificate", "Certificate", *EVERYTHING], api.kinds)
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
