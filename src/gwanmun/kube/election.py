"""The loop around `lease`: asks for the Lease, renews it, and says when leading begins and ends."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog

from gwanmun.kube.client import ApiError, KubeClient, UnreachableError
from gwanmun.kube.lease import Candidate, LeaseRecord, LeaseTimes, decode_lease, lease_spec
from gwanmun.kube.paths import manifest_path

log = structlog.get_logger()


class Election:
    """Owns one candidate. `changed` is called with True and False in turn."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        changed: Callable[[bool], None],
        clock: Callable[[], float],
        now: Callable[[], datetime],
        times: LeaseTimes = LeaseTimes(),  # noqa: B008  # a frozen value
    ) -> None:
        self.leading = False
        self._client = client
        self._namespace = namespace
        self._name = name
        self._candidate = Candidate(identity, times)
        self._changed = changed
        self._clock = clock
        self._now = now
        self._said = ""

    async def run(self) -> None:
        """Take part until cancelled; then give the lease up."""
        try:
            while True:
                self._tell(self._candidate.leads(self._clock()))  # an attempt may take long, and our time may be over
                try:
                    async with asyncio.timeout(self._candidate.patience(self._clock())):
                        await self._attempt()
                    self._said = ""
                except (ApiError, UnreachableError, TimeoutError) as error:
                    self._complain(error)
                self._tell(self._candidate.leads(self._clock()))
                await asyncio.sleep(self._candidate.times.retry)
        finally:
            await self._give_up()

    async def _attempt(self) -> None:
        before = await self._read()
        asked_at = self._clock()
        found = decode_lease(before) if before is not None else None
        record = self._candidate.look(found, now=asked_at, wall=self._wall())
        if record is None:
            return
        try:
            await self._write(record, before)
        except ApiError as error:
            if error.code != 409:
                raise
            return  # another one was faster
        self._candidate.written(record, asked_at=asked_at)

    async def _read(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._client.get(manifest_path(self._manifest()))
        except ApiError as error:
            if error.code == 404:
                return None
            raise
        return found

    async def _write(self, record: LeaseRecord, before: dict[str, Any] | None) -> None:
        manifest = {**self._manifest(), "spec": lease_spec(record)}
        path = manifest_path(manifest)
        if before is None:
            await self._client.call("POST", path.rpartition("/")[0], body=manifest)
        else:
            manifest["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
            await self._client.call("PUT", path, body=manifest)

    async def _give_up(self) -> None:
        self._tell(False)
        record = self._candidate.release(wall=self._wall())
        if record is None:
            return
        try:
            async with asyncio.timeout(2):
                before = await self._read()
                if before is not None and decode_lease(before).holder == self._candidate.identity:
                    await self._write(record, before)
        except (ApiError, UnreachableError, TimeoutError) as error:
            log.warning("lease_not_released", problem=str(error) or "no answer")

    def _tell(self, leading: bool) -> None:
        if leading != self.leading:
            self.leading = leading
            log.info("leading" if leading else "not_leading", lease=f"{self._namespace}/{self._name}")
            self._changed(leading)

    def _complain(self, error: Exception) -> None:
        said = str(error) or "no answer in time"
        if said != self._said:
            self._said = said
            grant = {"grant": 'apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "create", "update"]'}
            refused = isinstance(error, ApiError) and error.code == 403
            log.warning("lease_not_renewed", problem=said, **(grant if refused else {}))

    def _manifest(self) -> dict[str, Any]:
        metadata = {"name": self._name, "namespace": self._namespace}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}

    def _wall(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
