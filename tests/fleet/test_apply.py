"""Applying fleets: only what differs, only our own, and problems that say what to do."""

import copy
import itertools
import json
from collections.abc import Mapping
from typing import Any

from fleet.test_objects import INPUTS, OPTIONS, loaded, ports_of
from gwanmun.api import Made
from gwanmun.api.decode import decode_json
from gwanmun.api.kinds import MADE_KINDS, split_api_version
from gwanmun.infra.fleet import fleet_objects
from gwanmun.infra.fleet.apply import Fleet, Owner
from gwanmun.kube import ApiError, collection_path, manifest_path
from gwanmun.kube.paths import PLURALS
from gwanmun.names import ObjectKey
from gwanmun.resources import key_of

MADE = {(kind.group, kind.kind): kind for kind in MADE_KINDS}
GW = Owner("Gateway", "ai", "gw")


class Api:
    """An API server in memory, as far as fleets see one. A field whose only manager gives it up is gone."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.managers: dict[tuple[str, str], Mapping[str, Any]] = {}
        self.log: list[tuple[str, str]] = []
        self.forbidden: set[str] = set()
        self.refusal = 'User "us" cannot patch resource "these"'
        self.without: set[str] = {"/apis/cert-manager.io/v1/certificates"}
        self._uids = itertools.count(1)

    async def get(self, path: str, **parameters: str) -> Any:
        if path in self.without:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        if "labelSelector" not in parameters:
            if path not in self.objects:
                raise ApiError(404, "NotFound", path)
            return copy.deepcopy(self.objects[path])
        wanted = dict(pair.split("=") for pair in parameters["labelSelector"].split(","))
        kind, found = path.rpartition("/")[2], []
        for where, item in self.objects.items():
            below = path.rpartition("/")[0] if "/namespaces/" in path else ""
            if (
                where.split("/")[-2] == kind
                and where.startswith(below)
                and wanted.items() <= item["metadata"].get("labels", {}).items()
            ):
                found.append(copy.deepcopy(item))
        start = int(parameters.get("continue", "0"))
        rest = {"continue": str(start + 1)} if start + 1 < len(found) else {}
        return {"metadata": rest, "items": found[start : start + 1]}  # the smallest of pages

    async def apply(self, manifest: Mapping[str, Any], *, manager: str = "gwanmun") -> Any:
        path = manifest_path(manifest)
        self._check("patch", path)
        self.managers.pop((path, manager), None)  # by force: what was said last counts
        self.managers[path, manager] = copy.deepcopy(dict(manifest))
        merged: dict[str, Any] = {}
        for (where, _), part in self.managers.items():
            if where == path:
                merged = _over(merged, part)
        before = self.objects.get(path)
        merged["metadata"]["uid"] = before["metadata"]["uid"] if before else f"uid-{next(self._uids)}"
        if merged["kind"] == "Deployment":
            merged["spec"].setdefault("replicas", 1)
        self.objects[path] = merged
        self._say_who(path)
        return copy.deepcopy(merged)

    def _say_who(self, path: str) -> None:
        self.objects[path]["metadata"]["managedFields"] = [
            {
                "manager": who,
                "operation": "Apply",
                "fieldsV1": {
                    f"f:{name}": {f"f:{field}": {} for field in value}
                    for name, value in part.items()
                    if isinstance(value, dict)
                },
            }
            for (where, who), part in self.managers.items()
            if where == path
        ]

    def edit(self, path: str, part: str, field: str, value: Any) -> None:
        """By somebody else, who takes the field from whoever had it."""
        for (where, who), manifest in list(self.managers.items()):
            if where == path and field in manifest.get(part, {}):
                rest = {name: old for name, old in manifest[part].items() if name != field}
                self.managers[where, who] = {**manifest, part: rest}
        self.managers[path, "somebody"] = {"metadata": {}, part: {field: value}}
        self.objects[path][part][field] = value
        self._say_who(path)

    def made(self) -> dict[ObjectKey, Made]:
        """What a watch of metadata tells."""
        found: dict[ObjectKey, Made] = {}
        for one in self.objects.values():
            group, _ = split_api_version(one["apiVersion"])
            if (kind := MADE.get((group, one["kind"]))) is not None:
                obj = decode_json(json.dumps(one).encode(), kind)
                assert isinstance(obj, Made)
                found[key_of(obj)] = obj
        return found

    async def delete(self, manifest: Mapping[str, Any], *, uid: str | None = None) -> None:
        path = manifest_path(manifest)
        self._check("delete", path)
        if path in self.objects and self.objects[path]["metadata"]["uid"] == uid:
            del self.objects[path]
            self.managers = {key: part for key, part in self.managers.items() if key[0] != path}

    def scale(self, path: str, replicas: int) -> None:
        """As an autoscaler does it: the number is nobody else's afterwards."""
        for (where, who), part in list(self.managers.items()):
            if where == path:
                rest = {name: value for name, value in part["spec"].items() if name != "replicas"}
                self.managers[where, who] = {**part, "spec": rest}
        self.managers[path, "autoscaler"] = {"metadata": {}, "spec": {"replicas": replicas}}
        self.objects[path]["spec"]["replicas"] = replicas

    def put(self, manifest: Mapping[str, Any]) -> None:
        """Made by somebody else."""
        path = manifest_path(manifest)
        self.objects[path] = _over(copy.deepcopy(dict(manifest)), {"metadata": {"uid": f"uid-{next(self._uids)}"}})

    def kinds(self) -> list[str]:
        return sorted(item["kind"] for item in self.objects.values())

    def _check(self, verb: str, path: str) -> None:
        self.log.append((verb, path))
        if any(f"/{plural}/" in path for plural in self.forbidden):
            raise ApiError(403, "Forbidden", self.refusal)


def _over(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, Mapping):
        return {**base, **{key: _over(base.get(key), value) for key, value in over.items()}}
    return copy.deepcopy(over)


def objects(name: str = "defaults", uid: str | None = None) -> tuple[dict[str, Any], ...]:
    gateway, config = loaded(next(path for path in INPUTS if path.name.startswith(name)))
    made = copy.deepcopy(fleet_objects(gateway, config, ports_of(gateway), OPTIONS))
    for found in made:
        found["metadata"]["ownerReferences"][0]["uid"] = uid or gateway.metadata.uid
    return made


async def fleet_on(api: Api) -> Fleet:
    fleet = Fleet(api, OPTIONS.instance)
    assert await fleet.relist() == ()
    return fleet


async def test_what_is_there_is_not_written_again_not_even_after_a_restart() -> None:
    api = Api()
    fleet = await fleet_on(api)
    assert await fleet.apply(GW, objects()) == ()
    assert api.kinds() == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "ServiceAccount"]
    assert len(api.log) == 5
    assert await fleet.apply(GW, objects()) == ()
    assert await (await fleet_on(api)).apply(GW, objects()) == ()
    assert len(api.log) == 5
    fleet.forget()
    await fleet.apply(GW, objects())
    assert len(api.log) == 10


async def test_only_what_differs_is_written() -> None:
    api = Api()
    fleet = await fleet_on(api)
    await fleet.apply(GW, objects())
    changed = objects()
    changed[1]["data"]["ca.crt"] = "(another)"
    api.log.clear()
    await fleet.apply(GW, changed)
    assert [path.rpartition("/")[2] for _, path in api.log] == ["gw-gwanmun"]
    assert "configmaps" in api.log[0][1]


async def test_what_is_not_wanted_any_more_is_deleted_and_nothing_else_is() -> None:
    api = Api()
    fleet = await fleet_on(api)
    await fleet.apply(GW, objects())
    foreign = copy.deepcopy(objects()[0])
    foreign["metadata"]["name"] = "foreign"
    del foreign["metadata"]["ownerReferences"]
    api.put(foreign)
    api.put(_over(objects()[0], {"metadata": {"name": "other", "labels": {"gwanmun.dev/fleet": "another"}}}))
    without_service = tuple(found for found in objects() if found["kind"] != "Service")
    assert await (await fleet_on(api)).apply(GW, without_service) == ()
    assert "Service" not in api.kinds()
    assert await (await fleet_on(api)).sweep({GW}) == ()
    assert len(api.objects) == 6
    assert await (await fleet_on(api)).sweep(set()) == ()
    assert sorted(path.rpartition("/")[2] for path in api.objects) == ["foreign", "other"]


async def test_somebody_elses_object_of_the_same_name_is_left_alone() -> None:
    api = Api()
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "ai", "name": "gw-gwanmun"}, "spec": {"x": 1}}
    api.put(service)
    problems = await (await fleet_on(api)).apply(GW, objects())
    assert [str(problem) for problem in problems] == [
        "Service ai/gw-gwanmun is there already and gwanmun did not make it; delete it or rename Gateway ai/gw"
    ]
    assert api.objects[manifest_path(service)]["spec"] == {"x": 1}
    assert len(api.objects) == 5


async def test_two_gateways_whose_names_meet_do_not_fight() -> None:
    api = Api()
    fleet = await fleet_on(api)
    await fleet.apply(GW, objects())
    others = objects(uid="other")
    for found in others:
        found["metadata"]["ownerReferences"][0]["name"] = "other"
    problems = await fleet.apply(Owner("Gateway", "ai", "other"), others)
    assert {str(problem) for problem in problems} == {
        f"{kind} ai/gw-gwanmun belongs to Gateway ai/gw; rename one of the two" for kind in api.kinds()
    }


async def test_a_gateway_that_was_made_again_gets_objects_of_its_own() -> None:
    api = Api()
    await (await fleet_on(api)).apply(GW, objects(uid="old"))
    fleet = await fleet_on(api)
    first = await fleet.apply(GW, objects(uid="new"))
    assert "ServiceAccount ai/gw-gwanmun of the deleted Gateway ai/gw is being deleted" in [str(one) for one in first]
    assert await fleet.apply(GW, objects(uid="new")) == ()
    assert {item["metadata"]["ownerReferences"][0]["uid"] for item in api.objects.values()} == {"new"}


async def test_a_missing_right_is_named_and_harms_only_its_object() -> None:
    api = Api()
    api.forbidden = {"deployments"}
    problems = await (await fleet_on(api)).apply(GW, objects())
    assert [str(problem) for problem in problems] == [
        "cannot patch Deployment ai/gw-gwanmun: " + api.refusal + "; grant the controller "
        'apiGroups: ["apps"], resources: ["deployments"], verbs: ["create", "patch"]'
    ]
    assert len(api.objects) == 4
    api.forbidden = set()


async def test_a_new_autoscaler_starts_from_the_replicas_that_there_are() -> None:
    api = Api()
    fleet = await fleet_on(api)
    fixed = objects()
    await fleet.apply(GW, fixed)
    path = manifest_path(fixed[2])
    assert api.objects[path]["spec"]["replicas"] == 2
    scaled = objects()
    del scaled[2]["spec"]["replicas"]
    assert await fleet.apply(GW, scaled) == ()
    assert api.objects[path]["spec"]["replicas"] == 2


async def test_an_autoscaler_does_not_start_from_nothing() -> None:
    api = Api()
    fleet = await fleet_on(api)
    without_ports = objects()
    without_ports[2]["spec"]["replicas"] = 0
    await fleet.apply(GW, without_ports)
    scaled = objects()
    del scaled[2]["spec"]["replicas"]
    assert await fleet.apply(GW, scaled) == ()
    assert api.objects[manifest_path(scaled[2])]["spec"]["replicas"] == 1


async def test_what_an_autoscaler_has_made_of_the_replicas_stays() -> None:
    api = Api()
    fleet = await fleet_on(api)
    scaled = objects()
    path = manifest_path(scaled[2])
    await fleet.apply(GW, scaled)
    del scaled[2]["spec"]["replicas"]
    for replicas, image in ((3, "one"), (7, "two"), (5, "three")):
        api.scale(path, replicas)
        scaled[2]["spec"]["template"]["spec"]["containers"][0]["image"] = image
        assert await fleet.apply(GW, scaled) == ()
        assert api.objects[path]["spec"]["replicas"] == replicas
        assert api.objects[path]["spec"]["template"]["spec"]["containers"][0]["image"] == image


async def test_every_kind_has_a_path() -> None:
    assert collection_path("policy", "v1", PLURALS["policy", "PodDisruptionBudget"]) == "/apis/policy/v1/poddisruptionbudgets"


async def test_a_refusal_that_no_role_would_change_asks_for_none() -> None:
    api = Api()
    fleet = await fleet_on(api)
    for said, serving in (
        ('services "gw" is forbidden: exceeded quota: services', True),
        ('services "gw" is forbidden: unable to create new content in namespace ai because it is being terminated', False),
    ):
        api.refusal, api.forbidden = said, {"services"}
        (problem,) = await fleet.apply(GW, objects())
        assert (problem.grant, problem.serving) == (None, serving)


async def test_only_the_namespaces_that_are_served_are_looked_at() -> None:
    api = Api()
    await (await fleet_on(api)).apply(GW, objects())
    elsewhere, here = Fleet(api, OPTIONS.instance, ("other",)), Fleet(api, OPTIONS.instance, ("other", "ai"))
    for fleet in (elsewhere, here):
        assert await fleet.relist() == ()
    assert await elsewhere.sweep(()) == ()
    assert len(api.kinds()) == 5
    assert await here.sweep(()) == ()
    assert api.kinds() == []


OTHER = Owner("Gateway", "ai", "other")


def shared(*owners: str) -> tuple[dict[str, Any], ...]:
    """An object that several own, the first of them foremost."""
    found = copy.deepcopy(objects()[1])
    found["metadata"]["name"] = "shared"
    found["data"] = {"owners": " ".join(owners)}
    reference = found["metadata"]["ownerReferences"][0]
    found["metadata"]["ownerReferences"] = [
        {**reference, "name": name, "uid": name, "controller": name == owners[0]} for name in owners
    ]
    return (found,)


async def test_what_several_own_is_the_others_when_one_is_gone() -> None:
    api = Api()
    fleet = await fleet_on(api)
    for owner in (GW, OTHER):
        assert await fleet.apply(owner, shared("gw", "other")) == ()
    assert [verb for verb, _ in api.log] == ["patch"]
    for first, last in ((GW, OTHER), (OTHER, GW)):  # whichever is looked at first
        assert await fleet.apply(first, ()) == ()
        assert await fleet.apply(last, shared(last.name)) == ()
        assert "delete" not in [verb for verb, _ in api.log]
        (there,) = api.objects.values()
        assert there["data"] == {"owners": last.name}
        assert await fleet.apply(last, shared(last.name, first.name)) == ()
        assert await fleet.apply(first, shared(last.name, first.name)) == ()
    assert await (await fleet_on(api)).sweep({OTHER}) == ()
    assert api.kinds() == ["ConfigMap"]


async def test_what_several_own_goes_with_the_last() -> None:
    for first, last in ((GW, OTHER), (OTHER, GW)):
        api = Api()
        await (await fleet_on(api)).apply(GW, shared("gw", "other"))
        fleet = await fleet_on(api)
        assert await fleet.apply(first, ()) == ()
        assert await fleet.apply(last, ()) == ()
        assert api.kinds() == []


async def test_what_kubernetes_took_the_first_owner_out_of_is_still_ours() -> None:
    api = Api()
    await (await fleet_on(api)).apply(GW, shared("gw", "other"))
    (there,) = api.objects.values()
    del there["metadata"]["ownerReferences"][0]  # its garbage collector does so when a Gateway is gone
    assert await (await fleet_on(api)).apply(OTHER, shared("other")) == ()
    assert next(iter(api.objects.values()))["data"] == {"owners": "other"}


async def test_what_others_undo_is_applied_anew_and_nothing_else_is() -> None:
    api = Api()
    fleet = await fleet_on(api)
    await fleet.apply(GW, objects())
    deployment = manifest_path(objects()[2])
    api.log.clear()
    api.scale(deployment, 7)
    api.edit(deployment, "spec", "paused", True)  # which we say nothing of
    api.objects[deployment]["status"] = {"replicas": 7}
    undone = [key.kind for key, found in api.made().items() if fleet.undone(key, found)]
    assert undone == ["Deployment"]  # for its number of replicas, which we said
    api.edit(manifest_path(objects()[1]), "data", "ca.crt", "(theirs)")
    assert {key.kind for key, found in api.made().items() if fleet.undone(key, found)} == {"Deployment", "ConfigMap"}
    assert await fleet.apply(GW, objects()) == ()
    assert [verb for verb, _ in api.log] == ["patch", "patch"]
    assert api.objects[deployment]["spec"]["replicas"] == 2
    assert api.objects[deployment]["spec"]["paused"] is True
    assert api.objects[manifest_path(objects()[1])]["data"] == objects()[1]["data"]
    assert [key.kind for key, found in api.made().items() if fleet.undone(key, found)] == []
    assert await fleet.apply(GW, objects()) == ()
    assert len(api.log) == 2


async def test_what_an_autoscaler_says_undoes_nothing() -> None:
    api = Api()
    fleet = await fleet_on(api)
    scaled = objects()
    del scaled[2]["spec"]["replicas"]
    await fleet.apply(GW, scaled)
    api.scale(manifest_path(scaled[2]), 7)
    assert [key for key, found in api.made().items() if fleet.undone(key, found)] == []


async def test_what_cannot_be_applied_anew_stays_to_be_done() -> None:
    api = Api()
    fleet = await fleet_on(api)
    await fleet.apply(GW, objects())
    account = manifest_path(objects()[0])
    (key,) = (key for key in api.made() if key.kind == "ServiceAccount")
    del api.objects[account]
    assert list(fleet.undone(key, None)) == [GW]
    api.forbidden = {"serviceaccounts"}
    assert len(await fleet.apply(GW, objects())) == 1
    api.forbidden = set()
    assert await fleet.apply(GW, objects()) == ()
    assert account in api.objects


async def test_what_somebody_else_has_put_in_place_of_a_deleted_one_is_left_alone() -> None:
    api = Api()
    fleet = await fleet_on(api)
    await fleet.apply(GW, objects())
    account = manifest_path(objects()[0])
    (key,) = (key for key in api.made() if key.kind == "ServiceAccount")
    api.objects[account] = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"uid": "theirs"}}
    assert list(fleet.undone(key, None)) == [GW]
    for _ in range(2):
        (problem,) = await fleet.apply(GW, objects())
        assert "gwanmun did not make it" in str(problem)
    assert api.objects[account]["metadata"] == {"uid": "theirs"}


async def test_what_is_held_stays_although_it_is_not_wanted() -> None:
    api = Api()
    fleet = await fleet_on(api)
    await fleet.apply(GW, objects())
    everything = api.kinds()
    assert await fleet.apply(GW, (), held=frozenset(everything)) == ()
    assert api.kinds() == everything
