"""Whether the owner of objects has given them up. The API server itself is asked: what is followed may be old, refused or
unreadable, and none of that is a reason to take proxies away.
"""

from collections.abc import Collection
from typing import Any, Protocol

from gwanmun.api.kinds import KINDS, Kind
from gwanmun.api.references import GATEWAY_GROUP
from gwanmun.infra.fleet.apply import Owner, Problem
from gwanmun.kube import ApiError, UnreachableError, object_path
from gwanmun.kube.refusal import missing_right


class Reader(Protocol):
    """What is needed of an API server. Raises ApiError and UnreachableError."""

    async def get(self, path: str, **parameters: str) -> Any: ...


async def given_up(client: Reader, owner: Owner, controllers: Collection[str]) -> bool | Problem:
    """Whether the owner is known to be gone or going, or to be a Gateway of a class that is there and that none of
    `controllers` serves.

    A problem where that cannot be known; nothing may be deleted then.
    """
    found = await _read(client, KINDS[GATEWAY_GROUP, owner.kind], namespace=owner.namespace, name=owner.name)
    if isinstance(found, Problem):
        return found
    if found is None or found.get("metadata", {}).get("deletionTimestamp"):
        return True
    if owner.kind != "Gateway":
        return False
    name = found.get("spec", {}).get("gatewayClassName")
    return await _is_of_others(client, name, controllers) if name else False


async def _is_of_others(client: Reader, gateway_class: str, controllers: Collection[str]) -> bool | Problem:
    found = await _read(client, KINDS[GATEWAY_GROUP, "GatewayClass"], namespace="", name=gateway_class)
    if isinstance(found, Problem):
        return found
    if found is None:
        return False  # it may be about to be made again; until then traffic goes on as it was
    controller = found.get("spec", {}).get("controllerName")
    return bool(controller) and controller not in controllers


async def _read(client: Reader, kind: Kind, *, namespace: str, name: str) -> Any | Problem | None:
    """The object; None where there is none of this name, a problem where that cannot be known."""
    try:
        return await _read_newest(client, kind, namespace=namespace, name=name)
    except (ApiError, UnreachableError) as error:
        lacking = isinstance(error, ApiError) and error.code == 403 and missing_right(str(error))
        return Problem(str(error), _grant(kind) if lacking else None, serving=False)


def _grant(kind: Kind) -> str:
    where = "" if kind.namespaced else " in a ClusterRole"
    return f'apiGroups: ["{kind.group}"], resources: ["{kind.plural}"], verbs: ["get"]{where}'


async def _read_newest(client: Reader, kind: Kind, *, namespace: str, name: str) -> Any | None:
    """The object in the newest version that is served; None where there is none of this name."""
    for version in kind.versions[:-1]:
        try:
            return await _read_as(client, object_path(kind.group, version, kind.plural, namespace=namespace, name=name))
        except ApiError as error:
            if error.code != 404:
                raise
    last = kind.versions[-1]
    return await _read_as(client, object_path(kind.group, last, kind.plural, namespace=namespace, name=name))


async def _read_as(client: Reader, path: str) -> Any | None:
    try:
        return await client.get(path)
    except ApiError as error:
        # A 404 without this reason speaks of the path: a version or CRD that is not served says nothing about its objects.
        if error.code == 404 and error.reason == "NotFound":
            return None
        raise
