"""The proxies of all Gateways, as a controller sees them: who may connect, what each is given, and what they refuse of it.

A proxy is known by the service account that it has proven to have. Deliberately absent: how its pod comes to be (``fleets``).
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

import structlog

from gwanmun.api import Node
from gwanmun.app.errors import UserError
from gwanmun.app.metrics import Reading
from gwanmun.app.refused import Refused
from gwanmun.app.report import rejection_line
from gwanmun.app.reviews import account_of, node_of, token_review
from gwanmun.app.scopes import ScopeKey, Scopes, Update
from gwanmun.infra.fleet.contract import MODULE_FILE, TOKEN_AUDIENCE
from gwanmun.infra.podports import PodPorts
from gwanmun.infra.xdstls import XdsTls
from gwanmun.kube import KubeClient
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.model import Resolution
from gwanmun.resolve.pool import ZONE_LABEL
from gwanmun.resources import Snapshot
from gwanmun.xds.options import Options
from gwanmun.xds_server import Cause, Peer, Publisher, Refusal, XdsServer
from gwanmun.xds_server import Node as ProxyNode
from gwanmun.xds_server.identity import TokenIdentity
from gwanmun.xds_server.subscription import Rejection

log = structlog.get_logger()


class Proxies:
    """Owns the xDS port, and what is published there. `accounts` says whose proxies a service account is that of."""

    def __init__(self, ports: Callable[[NamespacedName], PodPorts], *, address: str) -> None:
        """`address` is that of listeners in a pod; `ports` says which port of the pod serves each port of a Gateway."""
        self.listening = False
        self.accounts: Mapping[NamespacedName, NamespacedName] = {}
        self._publisher = Publisher()
        self._publisher.observe(self._look_for_rejections)
        self._published = 0
        self._scopes = Scopes(Options(module_path=str(MODULE_FILE), access_log="/dev/stdout"), address=address, ports=ports)
        self._snapshot = Snapshot()
        self._turned_away = Refused(clock=time.monotonic)
        self._unknown: set[NamespacedName | None] = set()
        self._rejections: set[tuple[NamespacedName, Rejection]] = set()
        self._looking = False

    def belong(self, accounts: Mapping[NamespacedName, NamespacedName]) -> None:
        """By account the Gateway that it is of, from now on."""
        self.accounts = accounts
        self._unknown.difference_update(accounts)

    def take(self, snapshot: Snapshot, resolution: Resolution) -> None:
        """Publish what is another one now."""
        self._snapshot = snapshot
        self._close_empty_scopes()
        for step in self._scopes.feed(resolution):
            self._publish(step)

    async def serve(self, client: KubeClient, tls: XdsTls, listen: str) -> None:
        """The xDS port, until cancelled. Precondition: `take` was called, as a proxy must not be told that there is nothing.
        UserError where `listen` cannot be had."""
        identify = TokenIdentity(token_review(client, TOKEN_AUDIENCE), clock=time.monotonic)
        server = XdsServer(self._publisher, self._scope_of, identify=identify, turned_away=self._turned_away)
        try:
            await server.start(listen, tls.credentials())
        except RuntimeError as error:
            raise UserError(f"--xds-listen {listen}: {error}") from None
        self.listening = True
        log.info("xds_listening", address=listen)
        try:
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            self.listening = False
            await server.stop()

    def readings(self) -> Iterator[Reading]:
        """For metrics."""
        states = self._publisher.proxies
        yield Reading("gwanmun_xds_proxies", "Connected proxies", lambda: {"": len(states())})
        yield Reading(
            "gwanmun_xds_rejections",
            "Resources that proxies refuse at the moment",
            lambda: {"": sum(len(state.rejections) for state in states())},
        )
        yield Reading(
            "gwanmun_xds_publications",
            "Sets of resources that were published for a group of proxies",
            lambda: {"": self._published},
            counted=True,
        )
        yield Reading(
            "gwanmun_xds_refused",
            "Streams that were turned away",
            lambda: {str(cause): count for cause, count in self._turned_away.counts.items()},
            label="cause",
            counted=True,
        )

    def _publish(self, step: Update | ScopeKey) -> None:
        if isinstance(step, ScopeKey):
            self._publisher.retire(str(step))
            return
        serial = self._publisher.publish(str(step.scope), step.resources, step.changes)
        self._published += 1
        log.debug("xds_published", scope=str(step.scope), serial=serial)

    def _scope_of(self, _: ProxyNode, peer: Peer) -> str | Refusal:
        """The scope of a peer, by the service account that it has proven to have."""
        account = account_of(peer.names)
        gateway = self._gateway_of(peer)
        if gateway is None:
            # It tries again every other second: a Gateway that is just being deleted is to be told once.
            if account not in self._unknown:
                self._unknown.add(account)
                log.warning("proxy_refused", cause=str(Cause.OTHER_ACCOUNT), address=peer.address, account=str(account))
            return Refusal(f"service account {account} is not that of any Gateway's proxies here")
        node = node_of(peer.names)
        scope = ScopeKey(gateway, self._zone_of(node), node)
        if scope not in self._scopes:
            self._close_empty_scopes()
            update = self._scopes.open(scope)
            if update is None:
                return Refusal(f"Gateway {gateway} is not served at the moment; its status says why", Cause.NOT_SERVED)
            self._publish(update)
        return str(scope)

    def _close_empty_scopes(self) -> None:
        """Nodes come and go: there are no more scopes than nodes with proxies, but for those that left a moment ago."""
        followed = self._publisher.followed()
        for key in self._scopes.keys:
            if str(key) not in followed:
                self._scopes.close(key)
                self._publisher.retire(str(key))

    def _look_for_rejections(self) -> None:
        """Soon: a change is published to many scopes at once, and looking through all proxies for each would take too long."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._tell_rejections)

    def _tell_rejections(self) -> None:
        """What a proxy refuses is our mistake as a rule, and the rest of its configuration is in force: once in the log."""
        self._looking = False
        found = {
            (gateway, rejection)
            for state in self._publisher.proxies()
            for rejection in state.rejections
            if (gateway := self._gateway_of(state.peer)) is not None
        }
        for gateway, rejection in found - self._rejections:
            log.error("xds_rejected", gateway=str(gateway), problem=rejection_line(rejection))
        self._rejections = found

    def _gateway_of(self, peer: Peer) -> NamespacedName | None:
        account = account_of(peer.names)
        return self.accounts.get(account) if account is not None else None

    def _zone_of(self, node: str) -> str:
        found = self._snapshot.get(ObjectKey("", "Node", "", node)) if node else None
        return found.metadata.labels.get(ZONE_LABEL, "") if isinstance(found, Node) else ""
