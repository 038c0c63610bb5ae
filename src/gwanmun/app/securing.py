"""Keeping the certificate of the xDS port fresh, for as long as it takes to have one and ever after."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gwanmun.infra.xdstls import XdsTls, XdsTlsError
from gwanmun.kube import ApiError, UnreachableError

_GRANT: Final = 'apiGroups: [""], resources: ["secrets"], verbs: ["get", "create", "update"]'
_START_AGAIN_S = (0.5, 10.0)
_LOOK_AGAIN_S = 30.0  # a Secret that others change is to be in force within a minute
_TOLD_AGAIN: Final = (10, 100, 1000)

log = structlog.get_logger()


class Securing:
    """Owns the looking. `changed` is called when proxies have to trust something else than before."""

    def __init__(self, tls: XdsTls, *, changed: Callable[[], None]) -> None:
        self._tls = tls
        self._changed = changed
        self._problem = ""
        self._failures = 0

    @property
    def waiting(self) -> str:
        """Why nothing can be served; empty if there is a certificate."""
        return "" if self._tls.usable else self._problem or "it has not been read yet"

    async def until_secure(self) -> None:
        """Nothing can be served without a certificate: wait for the API server, or for a usable Secret, as long as it takes."""
        wait, longest = _START_AGAIN_S
        while not await self._look():
            await asyncio.sleep(wait)
            wait = min(longest, wait * 2)

    async def run(self) -> None:
        """Look again and again; what is in force stays so until there is better. Precondition: `until_secure` is over."""
        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            before = self._tls.bundle
            await self._look()
            if self._tls.bundle != before:
                log.info("xds_authorities_changed")
                self._changed()

    async def _look(self) -> bool:
        grant = {}
        try:
            await self._tls.refresh()
        except ApiError as error:
            problem = str(error)
            grant = {"grant": _GRANT} if error.code == 403 else {}
        except (UnreachableError, XdsTlsError) as error:
            problem = str(error)
        else:
            if self._problem:
                log.info("xds_certificate_restored")
            self._problem, self._failures = "", 0
            return True
        self._failures = self._failures + 1 if problem == self._problem else 1
        self._problem = problem
        if self._failures == 1 or self._failures in _TOLD_AGAIN:
            log.error("xds_certificate_unavailable", problem=problem, serving=self._tls.usable, **grant)
        return False
