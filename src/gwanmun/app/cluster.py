"""A cluster looked at once, as the controller sees it: for `check`, `explain`, `xds` and `status` of `@` or `@CONTEXT`.

Everything is read with the rights of whoever asks and resolved here; the controller is not asked. What may not be read is
told, since what depends on it looks broken.
"""

import asyncio
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gwanmun import api
from gwanmun.app.errors import UserError
from gwanmun.app.logs import configure_logs
from gwanmun.app.target import PREFIX
from gwanmun.kube import KubeClient, KubeConfigError, Present, connection
from gwanmun.names import ObjectKey
from gwanmun.providers.kubernetes import KubernetesOptions, KubernetesProvider
from gwanmun.resolve.status import Condition
from gwanmun.resources import Snapshot
from gwanmun.resources.snapshot import GATEWAY_GROUP, IndexKey
from gwanmun.status import StatusRow, row_document, status_row
from gwanmun.status.writer import MANAGER

_PATIENCE_S: Final = 30.0
_CLASSES: Final = IndexKey("kind", (GATEWAY_GROUP, "GatewayClass"))
_GATEWAYS: Final = IndexKey("kind", (GATEWAY_GROUP, "Gateway"))


@dataclass(frozen=True, slots=True)
class ClusterPicture:
    """What there is, and the statuses that are written there. `refused` are the kinds that may not be read."""

    snapshot: Snapshot
    present: Mapping[ObjectKey, Present]
    refused: tuple[str, ...]


def read_cluster(path: Path) -> ClusterPicture:
    """The cluster of `@` (the current context) or `@CONTEXT`. UserError where there is none or it does not answer."""
    configure_logs("text", quiet=True)
    return asyncio.run(_read(str(path).removeprefix(PREFIX) or None))


async def _read(context: str | None) -> ClusterPicture:
    try:
        client = KubeClient(connection(None, context, environment=os.environ), user_agent="gwanmun-cli")
    except KubeConfigError as error:
        raise UserError(str(error)) from None
    async with client:
        provider = KubernetesProvider(client, KubernetesOptions(), draw=random.random)
        try:
            async with asyncio.timeout(_PATIENCE_S), aclosing(provider.watch()) as batches:
                batch = await anext(batches)
        except TimeoutError:
            missing = ", ".join(provider.waiting_for[:5])
            raise UserError(f"{client.server} did not answer within {_PATIENCE_S:.0f} s; still waiting for {missing}") from None
    snapshot, _ = Snapshot().apply(batch.objects)
    present = {key: state for key, state in batch.present.items() if state is not None}
    return ClusterPicture(snapshot, present, provider.refused)


def status_report(picture: ClusterPicture, controllers: frozenset[str]) -> dict[str, Any]:
    """What the API server says of all objects that one of these controllers speaks for, in the form of `status`."""
    shown = [row for key in sorted(picture.present) for row in _rows(key, picture, controllers)]
    any_gateway = any(row.kind == "Gateway" for row in shown)  # one of ours may be without its class
    others = "" if any_gateway else only_others(picture.snapshot, sorted(controllers))
    return {
        "version": 0,
        "healthy": all(row.healthy for row in shown) and not others,
        "addresses": list(_addresses(picture, {(row.namespace, row.name) for row in shown if row.kind == "Gateway"})),
        "objects": [row_document(row) for row in shown],
        "problems": [
            *([others] if others else ()),
            *(f"{row.kind} {row.namespace}/{row.name}: {detail}" for row in shown for detail in row.details),
            *(f"{kind} may not be read with these credentials" for kind in picture.refused),
        ],
    }


def only_others(snapshot: Snapshot, controllers: Sequence[str]) -> str:
    """Where there are Gateways, but none of these controllers': whose there are. Else empty."""
    classes = {key.name: _controller_of(snapshot, key) for key in snapshot.find(_CLASSES)}
    gateways: list[Any] = [snapshot.get(key) for key in snapshot.find(_GATEWAYS)]
    found = {gateway.spec.gateway_class_name for gateway in gateways}
    if not found or any(classes.get(name) in controllers for name in found):
        return ""
    whose = ", ".join(f"{name} ({classes.get(name) or 'which is not there, or may not be read'})" for name in sorted(found))
    return (
        f"no Gateway has a class of {' or '.join(controllers)}; there are those of {whose}; "
        "give the name of the controller that is meant with --controller-name"
    )


def _controller_of(snapshot: Snapshot, key: ObjectKey) -> str:
    found: Any = snapshot.get(key)
    return str(found.spec.controller_name)


def _addresses(picture: ClusterPicture, gateways: set[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for key, present in sorted(picture.present.items()):
        if key.kind == "Gateway" and (key.namespace, key.name) in gateways:
            obj: Any = picture.snapshot.get(key)
            for address in present.status.addresses:
                for port in sorted({listener.port for listener in obj.spec.listeners}):
                    gateway = f"{key.namespace}/{key.name}"
                    yield {"gateway": gateway, "port": port, "address": f"{address.value}:{port}", "note": ""}


def _rows(key: ObjectKey, picture: ClusterPicture, controllers: frozenset[str]) -> Iterator[StatusRow]:
    status, obj = picture.present[key].status, picture.snapshot.get(key)
    shared = getattr(status, "parents", None) or getattr(status, "ancestors", None) or ()
    for entry in shared:
        if entry.controller_name in controllers:
            reference = entry.parent_ref if hasattr(entry, "parent_ref") else entry.ancestor_ref
            section = f"#{reference.section_name}" if reference.section_name else ""
            yield _row(key, f"{reference.kind} {reference.name}{section}", entry.conditions)
    if shared or not _ours(key, obj, picture, controllers):
        return
    yield _row(key, "", getattr(status, "conditions", ()))
    for listener in getattr(status, "listeners", ()):
        yield _row(key, listener.name, listener.conditions, listener.attached_routes)


def _ours(key: ObjectKey, obj: Any, picture: ClusterPicture, controllers: frozenset[str]) -> bool:
    if key.kind == "GatewayClass":
        return bool(obj.spec.controller_name in controllers)
    if key.kind == "Gateway":
        found: Any = picture.snapshot.get(ObjectKey(key.group, "GatewayClass", "", obj.spec.gateway_class_name))
        if found is None:  # those that we have served say so
            return MANAGER in picture.present[key].authors
        return bool(found.spec.controller_name in controllers)
    return key.kind == "ListenerSet"


def _row(key: ObjectKey, part: str, conditions: Iterable[api.Condition], attached_routes: int | None = None) -> StatusRow:
    found = (Condition(one.type, {"True": True, "False": False}.get(one.status), one.reason, one.message) for one in conditions)
    return status_row(key, part, found, attached_routes)
