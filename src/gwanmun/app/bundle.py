"""`Bundle`: looks now and then which release the CRDs of the Gateway API that are installed come from."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog

from gwanmun.api.kinds import KINDS
from gwanmun.api.references import GATEWAY_GROUP
from gwanmun.kube import ApiError, UnreachableError, object_path

ANNOTATION: Final = "gateway.networking.k8s.io/bundle-version"
SUPPORTED: Final = "v1.6"
"""The minor release of the CRDs in `api/crds`; the patch does not matter."""
CRDS: Final = tuple(sorted(f"{kind.plural}.{kind.group}" for kind in KINDS.values() if kind.group == GATEWAY_GROUP))
_GROUP: Final = "apiextensions.k8s.io"
_LOOK_AGAIN_S: Final = 60.0

log = structlog.get_logger()


class Reader(Protocol):
    """What is needed of an API server. Raises ApiError and UnreachableError."""

    async def get_metadata(self, path: str) -> Any: ...


class Bundle:
    """Owns what was seen. `changed` hears that `problem` is another one now."""

    def __init__(self, client: Reader, *, changed: Callable[[], None]) -> None:
        self._client = client
        self._changed = changed
        self._versions: dict[str, str] = {}
        self._refused = False

    @property
    def problem(self) -> str | None:
        """Which CRDs are not of the supported release; None where all are that can be read."""
        others = {name: version for name, version in self._versions.items() if not _supported(version)}
        if not others:
            return None
        found = ", ".join(f"{name} ({version or f'no annotation {ANNOTATION}'})" for name, version in sorted(others.items()))
        return f"CRDs of {SUPPORTED} are supported; others are served as well as they can be: {found}"

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            await self.look()

    async def look(self) -> None:
        """What cannot be read just now counts as it was."""
        before = self.problem
        await asyncio.gather(*(self._read(name) for name in CRDS))
        if self.problem != before:
            self._changed()

    async def _read(self, name: str) -> None:
        try:
            path = object_path(_GROUP, "v1", "customresourcedefinitions", namespace="", name=name)
            metadata = (await self._client.get_metadata(path)).get("metadata", {})
        except ApiError as error:
            if error.code == 404:
                self._versions.pop(name, None)
            elif error.code == 403 and not self._refused:
                self._refused = True
                grant = f'apiGroups: ["{_GROUP}"], resources: ["customresourcedefinitions"], verbs: ["get"] in a ClusterRole'
                log.warning("crds_unread", problem=str(error), grant=grant)
        except UnreachableError:
            return
        else:
            self._versions[name] = (metadata.get("annotations") or {}).get(ANNOTATION, "")


def _supported(version: str) -> bool:
    return version == SUPPORTED or version.startswith((f"{SUPPORTED}.", f"{SUPPORTED}-"))
