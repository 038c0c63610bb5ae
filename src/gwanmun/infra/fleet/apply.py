"""`Fleet`: puts the objects of Gateways to the API server, and takes away its own that are not wanted any more.

An object is this installation's where its labels say so and a Gateway or ListenerSet owns it; nothing else is ever changed
or deleted, whatever its name. Several may own one together: it goes with the last of them. Deliberately absent: what the
objects are (`objects`), and when to try again (the caller).
"""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

from gwanmun.api import Made
from gwanmun.api.kinds import MADE_KINDS, Kind, split_api_version
from gwanmun.infra.fleet.contract import PROVISIONAL
from gwanmun.infra.fleet.naming import ours
from gwanmun.kube import ApiError, UnreachableError, collection_path, manifest_path
from gwanmun.kube.paths import PLURALS
from gwanmun.kube.refusal import missing_right, namespace_ends, namespace_is_gone
from gwanmun.names import ObjectKey

MANAGER: Final = "gwanmun"
_SCALE_MANAGER: Final = "gwanmun-scale"
"""Holds the number of replicas that the autoscaler has found, when we stop saying one."""
_HASH: Final = "gwanmun.dev/applied"
_OWNERS: Final = ("Gateway", "ListenerSet")
_NOT_SERVING: Final = ("Certificate", "NetworkPolicy")
"""Kinds without which proxies run all the same."""
_PAGE: Final = "500"
_KINDS: Final = {(kind.group, kind.kind): kind for kind in MADE_KINDS}


class FleetClient(Protocol):
    """What is needed of an API server; `KubeClient` has it. Raises ApiError and UnreachableError."""

    async def get(self, path: str, **parameters: str) -> Any: ...
    async def apply(self, manifest: Mapping[str, Any], *, manager: str = ...) -> Any: ...
    async def delete(self, manifest: Mapping[str, Any], *, uid: str | None = None) -> None: ...


class Owner(NamedTuple):
    """The Gateway or ListenerSet that objects are made for."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


Objects = Mapping[Owner, Sequence[dict[str, Any]]]
"""By whom they are for: a Gateway, and the ListenerSets that add to it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an object is not as it should be. `grant` is the rule of a Role that the controller lacks, if that is why.

    `serving` False: proxies run without it.
    """

    message: str
    grant: str | None = None
    serving: bool = True

    def __str__(self) -> str:
        return self.message if self.grant is None else f"{self.message}; grant the controller {self.grant}"


class Hindrance(NamedTuple):
    """Why a Gateway's objects cannot all be as they should; what there is of the kinds `held` stays as it is."""

    problem: Problem
    held: frozenset[str]


class _Identity(NamedTuple):
    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Live:
    """One of ours as it is there. `owners` have the uids that the object names. `applied` is the hash of what was applied last,
    empty where that has to be done again. `provisional`: for want of its parameters it was made with defaults.
    `says_replicas`: the number of replicas is what we have said. `fields` is a hash of what still is as we wrote it."""

    uid: str
    owners: Mapping[Owner, str]
    applied: str
    says_replicas: bool
    provisional: bool
    fields: str


class Fleet:
    """Owns what is known of the objects that are there. Constructing it asks nothing; `relist` has to come first.
    `writes` counts what was applied and deleted."""

    def __init__(self, client: FleetClient, instance: str, namespaces: Collection[str] = ()) -> None:
        """`namespaces` are those that may be looked at; none: all of them."""
        self.writes = 0
        self._client = client
        self._namespaces = tuple(namespaces) or ("",)
        self._labels = ours(instance)
        self._live: dict[_Identity, _Live] = {}
        self._undone: set[_Identity] = set()

    @property
    def owners(self) -> frozenset[Owner]:
        """Those that have objects."""
        return frozenset(owner for live in self._live.values() for owner in live.owners)

    async def relist(self) -> tuple[Problem, ...]:
        """Look at what there is. Raises UnreachableError; a kind that may not be listed is a problem and no obstacle."""
        live: dict[_Identity, _Live] = {}
        problems = []
        for kind in MADE_KINDS:
            try:
                for namespace in self._namespaces:
                    for item in await self._list(kind, namespace):
                        if (found := _live(item, self._labels)) is not None:
                            metadata = item["metadata"]
                            live[_identity_of(kind, metadata["namespace"], metadata["name"])] = found
            except ApiError as error:
                # Without its CRD a kind has no objects.
                if error.code != 404:
                    problems.append(_problem(error, _identity_of(kind, "", ""), "list"))
        self._live = live
        return tuple(problems)

    def forget(self) -> None:
        """Apply everything once more when it is next asked for: somebody else may have changed it."""
        self._live = {identity: replace(live, applied="") for identity, live in self._live.items()}

    def undone(self, key: ObjectKey, found: Made | None) -> Collection[Owner]:
        """Whose object somebody else has deleted or changed back, now that it is like this (None: gone). It is applied anew
        when it is next wanted. Nobody's where it is as it was applied, or is not known here."""
        identity = _identity_of(_KINDS[key.group, key.kind], key.namespace, key.name)
        live = self._live.get(identity)
        if live is None or (found is not None and live.fields == _fields_of(found)):
            return ()
        self._undone.add(identity)
        return live.owners

    async def apply(
        self, owner: Owner, objects: Sequence[Mapping[str, Any]], *, held: Collection[str] = ()
    ) -> tuple[Problem, ...]:
        """Let the owner have exactly these objects. What differs from the last time is applied, in this order; what is
        there beyond them is deleted unless others own it, too. Problems of one object do not keep the others from being
        applied. What there is of the kinds `held` stays as it is, except what is provisional."""
        problems: list[Problem] = []
        wanted = {_identity(manifest): manifest for manifest in objects}
        for identity, manifest in wanted.items():
            problems += await self._apply(identity, manifest, owner, held)
        unwanted = [found for found, live in self._live.items() if owner in live.owners and found not in wanted]
        for identity in (one for one in unwanted if one.kind not in held or self._live[one].provisional):
            problems += await self._leave(identity, owner)
        return tuple(problems)

    async def sweep(self, owners: Collection[Owner]) -> tuple[Problem, ...]:
        """Delete what belongs to none of these: a Gateway may have gone to another class while nobody looked."""
        problems: list[Problem] = []
        for identity in [found for found, live in self._live.items() if live.owners.keys().isdisjoint(owners)]:
            problems += await self._delete(identity)
        return tuple(problems)

    async def _list(self, kind: Kind, namespace: str) -> list[dict[str, Any]]:
        path = collection_path(kind.group, kind.versions[0], kind.plural, namespace)
        selector = ",".join(f"{name}={value}" for name, value in self._labels.items())
        found: list[dict[str, Any]] = []
        page = await self._client.get(path, labelSelector=selector, limit=_PAGE)
        while True:
            found += page["items"]
            rest = page["metadata"].get("continue")
            if not rest:
                return found
            page = await self._client.get(path, labelSelector=selector, limit=_PAGE, **{"continue": rest})

    async def _apply(
        self, identity: _Identity, manifest: Mapping[str, Any], owner: Owner, held: Collection[str]
    ) -> Iterator[Problem]:
        if identity not in self._undone:
            return await self._put(identity, manifest, owner, held=held, live=self._live.get(identity))
        self._undone.discard(identity)  # now, as it may be undone again meanwhile
        problems = tuple(await self._put(identity, manifest, owner, held=held, live=None))
        if problems:
            self._undone.add(identity)
        return iter(problems)

    async def _put(
        self, identity: _Identity, manifest: Mapping[str, Any], owner: Owner, *, held: Collection[str], live: _Live | None
    ) -> Iterator[Problem]:
        """`live` is what is there, None where that has to be asked."""
        digest, verb = _hash_of(manifest), "get"
        try:
            if live is None and (found := await self._existing(manifest)) is not None:
                live = _live(found, self._labels)
                if live is None:
                    return _one(f"{identity} is there already and gwanmun did not make it; delete it or rename {owner}")
                live = replace(live, applied="")  # what it was applied with may have been changed back since
            owners = _owners(manifest)
            if live is not None and live.owners.keys().isdisjoint(owners):
                return _one(f"{identity} belongs to {next(iter(live.owners))}; rename one of the two")
            verb = "patch"
            if live is not None and live.owners.items().isdisjoint(owners.items()):
                # Its owner was deleted and made again: Kubernetes is about to delete the old one's objects.
                return await self._replace(identity, live)
            if live is not None and identity.kind in held and not live.provisional:
                self._live[identity] = live
                return iter(())
            if live is not None and live.applied == digest:
                self._live[identity] = replace(live, owners=owners)  # also those that had left it meanwhile
                return iter(())
            if live is not None and live.says_replicas and _leaves_replicas(manifest):
                await self._hand_over_replicas(manifest)
            applied = await self._client.apply(_with_hash(manifest, digest), manager=MANAGER)
            self.writes += 1
        except (ApiError, UnreachableError) as error:
            return iter((_problem(error, identity, verb),))
        now = _live(applied, self._labels)
        if now is not None:
            self._live[identity] = now
        return iter(())

    async def _existing(self, manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
        try:
            found: Mapping[str, Any] = await self._client.get(manifest_path(manifest))
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return found

    async def _hand_over_replicas(self, manifest: Mapping[str, Any]) -> None:
        """Somebody else says from now on how many there are. Until they do it stays as it is now: what was last seen may be
        long ago. None at all would stay none: an autoscaler leaves such a Deployment alone."""
        found = await self._existing(manifest)
        if found is not None:
            await self._client.apply(_scale(manifest, max(1, found["spec"]["replicas"])), manager=_SCALE_MANAGER)

    async def _replace(self, identity: _Identity, live: _Live) -> Iterator[Problem]:
        self._live[identity] = live
        problems = tuple(await self._delete(identity))
        return iter(problems) if problems else _one(f"{identity} of the deleted {next(iter(live.owners))} is being deleted")

    async def _leave(self, identity: _Identity, owner: Owner) -> Iterator[Problem]:
        """The owner does not want the object any more. Others that own it, too, will say so when they apply theirs."""
        live = self._live[identity]
        others = {other: uid for other, uid in live.owners.items() if other != owner}
        if not others:
            return await self._delete(identity)
        self._live[identity] = replace(live, owners=others)
        return iter(())

    async def _delete(self, identity: _Identity) -> Iterator[Problem]:
        live = self._live[identity]
        manifest = {
            "apiVersion": identity.api_version,
            "kind": identity.kind,
            "metadata": {"namespace": identity.namespace, "name": identity.name},
        }
        try:
            # Only the one that was looked at: another of this name may be somebody else's.
            await self._client.delete(manifest, uid=live.uid)
        except (ApiError, UnreachableError) as error:
            return iter((_problem(error, identity, "delete"),))
        self.writes += 1
        self._undone.discard(identity)
        del self._live[identity]
        return iter(())


def _identity_of(kind: Kind, namespace: str, name: str) -> _Identity:
    version = kind.versions[0]
    return _Identity(f"{kind.group}/{version}" if kind.group else version, kind.kind, namespace, name)


def _identity(manifest: Mapping[str, Any]) -> _Identity:
    metadata = manifest["metadata"]
    return _Identity(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])


def _live(item: Mapping[str, Any], labels: Mapping[str, str]) -> _Live | None:
    """What an object is to us; None where it is not ours."""
    metadata = item["metadata"]
    if not labels.items() <= metadata.get("labels", {}).items():
        return None
    owners = _owners(item)
    if not owners:
        return None
    annotations = metadata.get("annotations", {})
    fields = _our_fields(metadata)
    says_replicas = any("f:replicas" in one.get("f:spec", {}) for one in fields)
    applied, is_provisional = annotations.get(_HASH, ""), PROVISIONAL in annotations
    return _Live(metadata["uid"], owners, applied, says_replicas, is_provisional, _hash_of(fields))


def _our_fields(metadata: Mapping[str, Any]) -> list[Any]:
    """What we have applied and nobody has changed since: who changes a field takes it from us."""
    managed = metadata.get("managedFields", ())
    return [one.get("fieldsV1", {}) for one in managed if (one["manager"], one["operation"]) == (MANAGER, "Apply")]


def owners_of(found: Made) -> frozenset[Owner]:
    """Whom an object belongs to of which only the metadata is known."""
    metadata = found.metadata
    return frozenset(Owner(one.kind, metadata.namespace, one.name) for one in metadata.owner_references if one.kind in _OWNERS)


def _fields_of(found: Made) -> str:
    """The same of an object of which only the metadata is known."""
    managed = found.metadata.managed_fields
    return _hash_of([one.fields_v1 for one in managed if (one.manager, one.operation) == (MANAGER, "Apply")])


def _owners(manifest: Mapping[str, Any]) -> dict[Owner, str]:
    """Whom the object belongs to, with their uids. Not only the controller: Kubernetes takes out those that are gone."""
    metadata = manifest["metadata"]
    return {
        Owner(one["kind"], metadata["namespace"], one["name"]): one["uid"]
        for one in metadata.get("ownerReferences", ())
        if one["kind"] in _OWNERS
    }


def _hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _with_hash(manifest: Mapping[str, Any], digest: str) -> dict[str, Any]:
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), _HASH: digest}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def _leaves_replicas(manifest: Mapping[str, Any]) -> bool:
    return manifest["kind"] == "Deployment" and "replicas" not in manifest["spec"]


def _scale(manifest: Mapping[str, Any], replicas: int) -> dict[str, Any]:
    """Only the number: a field that its last manager gives up falls back to its default, which is one replica."""
    metadata = {key: manifest["metadata"][key] for key in ("namespace", "name")}
    return {
        "apiVersion": manifest["apiVersion"],
        "kind": manifest["kind"],
        "metadata": metadata,
        "spec": {"replicas": replicas},
    }


def _problem(error: ApiError | UnreachableError, identity: _Identity, verb: str) -> Problem:
    subject, serving = str(identity) if identity.name else identity.kind, identity.kind not in _NOT_SERVING
    group, _ = split_api_version(identity.api_version)
    message = f"cannot {verb} {subject}: {error}"
    if not isinstance(error, ApiError) or error.code >= 500 or error.code in (409, 429):
        # The API server is away or busy: what it has been told already serves on.
        return Problem(message, serving=False)
    if error.code == 404 and not error.reason:
        # Not that an object is missing, which has a reason, but the path to all of them.
        return Problem(f"cannot {verb} {subject}: {identity.kind} of {group} is not installed", serving=serving)
    if namespace_ends(str(error)) or namespace_is_gone(str(error)):
        # Of all objects at once, whichever of the two is said: soon the Gateway will be gone, too.
        return Problem(f"nothing can be made in namespace {identity.namespace} because it is being terminated", serving=False)
    if error.code != 403 or not missing_right(str(error)):
        return Problem(message, serving=serving)
    verbs = '"create", "patch"' if verb == "patch" else f'"{verb}"'
    grant = f'apiGroups: ["{group}"], resources: ["{PLURALS[group, identity.kind]}"], verbs: [{verbs}]'
    return Problem(message, grant, serving)


def _one(message: str) -> Iterator[Problem]:
    return iter((Problem(message),))
