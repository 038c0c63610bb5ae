"""`Applier`: keeps at the API server what every Gateway's fleet is to be. Only the leader applies.

Objects are applied when they differ from what was applied last, and all again now and then, should somebody else have
changed them. What belongs to a deleted Gateway Kubernetes deletes itself, by the owner references.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gwanmun.api.kinds import split_api_version
from gwanmun.kube import ApiError, KubeClient, UnreachableError
from gwanmun.kube.paths import PLURALS
from gwanmun.names import NamespacedName

Objects = tuple[dict[str, Any], ...]
_RETRY_S: Final = 2.0
_AGAIN_S: Final = 600.0
_CONCURRENCY: Final = 4

log = structlog.get_logger()


@dataclass(slots=True)
class ApplyStats:
    """Counted since the start, for metrics."""

    applied: int = 0
    failed: int = 0


class Applier:
    """Owns what was applied. `objects_of` says what a Gateway is to have; None: it is not ours any more."""

    def __init__(self, client: KubeClient, objects_of: Callable[[NamespacedName], Objects | None]) -> None:
        self.stats = ApplyStats()
        self._client = client
        self._objects_of = objects_of
        self._applied: dict[NamespacedName, Objects] = {}
        self._known: set[NamespacedName] = set()
        self._due: dict[NamespacedName, None] = {}
        self._news = asyncio.Event()
        self._leading = False
        self._complained: set[str] = set()

    def lead(self, leading: bool) -> None:
        """Whether we are the one that applies."""
        self._leading = leading
        if leading:
            self._applied.clear()
            self.touch(*self._known)
        self._news.set()

    def touch(self, *gateways: NamespacedName) -> None:
        """The Gateways' objects may have to be others now."""
        self._known.update(gateways)
        self._due.update(dict.fromkeys(gateways))
        self._news.set()

    async def run(self) -> None:
        """Apply until cancelled."""
        while True:
            try:
                await asyncio.wait_for(self._news.wait(), _AGAIN_S)
            except TimeoutError:
                self._applied.clear()
                self.touch(*self._known)
            self._news.clear()
            while self._leading and self._due:
                batch = list(self._due)[:_CONCURRENCY]
                for gateway in batch:
                    del self._due[gateway]
                await asyncio.gather(*(self._apply(gateway) for gateway in batch))

    async def _apply(self, gateway: NamespacedName) -> None:
        objects = self._objects_of(gateway)
        if objects is None:
            self._known.discard(gateway)
            for manifest in self._applied.pop(gateway, ()):
                await self._attempt(gateway, self._client.delete, manifest)
            return
        before = _by_identity(self._applied.get(gateway, ()))
        wanted = _by_identity(objects)
        done = []
        for identity, manifest in wanted.items():
            if before.get(identity) == manifest or await self._attempt(gateway, self._client.apply, manifest):
                done.append(manifest)
        for identity, manifest in before.items():
            if identity not in wanted and not await self._attempt(gateway, self._client.delete, manifest):
                done.append(manifest)
        self._applied[gateway] = tuple(done)

    async def _attempt(
        self, gateway: NamespacedName, act: Callable[[Mapping[str, Any]], Any], manifest: dict[str, Any]
    ) -> bool:
        try:
            await act(manifest)
        except (ApiError, UnreachableError) as error:
            self.stats.failed += 1
            self._complain(gateway, manifest, error)
            asyncio.get_running_loop().call_later(_RETRY_S, self.touch, gateway)
            return False
        self.stats.applied += 1
        return True

    def _complain(self, gateway: NamespacedName, manifest: Mapping[str, Any], error: Exception) -> None:
        said = f"{gateway} {manifest['kind']} {error}"
        if said in self._complained:
            return
        self._complained.add(said)
        grant = {}
        if isinstance(error, ApiError) and error.code == 403:
            group, _ = split_api_version(manifest["apiVersion"])
            plural = PLURALS[group, manifest["kind"]]
            verbs = 'verbs: ["create", "patch", "delete"]'
            grant = {"grant": f'apiGroups: ["{group}"], resources: ["{plural}"], {verbs}'}
        log.error("fleet_not_applied", gateway=str(gateway), kind=manifest["kind"], problem=str(error), **grant)


def _by_identity(objects: Objects) -> dict[tuple[str, str], dict[str, Any]]:
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in objects}
