"""`gwanmun controller`: the same core as `up`, on Kubernetes.

`Controller` puts the parts together: API server -> resolve -> a set of resources for each Gateway -> ADS -> the proxies of
its fleet; and back: statuses, and the fleets themselves. Several run side by side: all serve proxies, one leads and writes.
"""

import asyncio
import gc
import os
import random
import re
import signal
import socket
import time
from collections.abc import Collection, Hashable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from gwanmun.api import Gateway, GatewayClass, Made, Object
from gwanmun.api.kinds import MADE_KINDS
from gwanmun.app.applying import Applier
from gwanmun.app.bundle import Bundle
from gwanmun.app.errors import UserError
from gwanmun.app.fleets import Fleets, ParametersKey, class_parameters, own_parameters
from gwanmun.app.health import health_server
from gwanmun.app.metrics import ControllerMetrics, Reading, watching, writing
from gwanmun.app.proxies import Proxies
from gwanmun.app.securing import Securing
from gwanmun.infra.fleet import FleetOptions
from gwanmun.infra.fleet.apply import Owner, Problem, owners_of
from gwanmun.infra.fleet.certificates import Issuer
from gwanmun.infra.fleet.naming import dns_label, ours
from gwanmun.infra.fleet.owners import given_up
from gwanmun.infra.xdstls import XdsTls, XdsTlsOptions
from gwanmun.kube import KubeClient, KubeConfigError, Present, connection
from gwanmun.kube.election import Election
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.providers.kubernetes import Batch, KubernetesOptions, KubernetesProvider, metadata_of
from gwanmun.resolve.model import Resolution, Resolver
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot
from gwanmun.resources.snapshot import GATEWAY_GROUP, IndexKey
from gwanmun.status import status_document
from gwanmun.status.events import EventWriter, notes
from gwanmun.status.parentless import parentless
from gwanmun.status.placement import Placement, placed
from gwanmun.status.surroundings import unread, unsupported
from gwanmun.status.writer import MANAGER, StatusWriter, WriterOptions

_LEASE = "gwanmun-controller"
_NO_CLUSTER = "give --kubeconfig or set KUBECONFIG"
_MOST_PROBLEMS = 5
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What `controller` is told. `namespace` is where it runs itself (its Lease, its Secret); empty: that of the kubeconfig.

    `controllers` empty means the names that are ours by default; `namespaces` empty means all of them. `fleet.xds_address`
    is where proxies find the control plane; its authorities are filled in here. `bind_address` is for listeners in pods.
    `issuer` is cert-manager's that makes the certificates of listeners; None leaves them to others.
    """

    fleet: FleetOptions
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str = ""
    namespaces: tuple[str, ...] = ()
    controllers: tuple[str, ...] = ()
    xds_listen: str = "0.0.0.0:18000"
    metrics_listen: str = "0.0.0.0:9090"
    bind_address: str = "0.0.0.0"  # noqa: S104  they are to be reached from outside
    xds_secret: str | None = None
    issuer: Issuer | None = None
    leader_elect: bool = True
    identity: str = field(default_factory=lambda: f"{socket.gethostname()}_{os.getpid()}")


class Controller:
    """One running controller. `run` returns after `request_stop` (or a signal)."""

    def __init__(self, options: ControllerOptions) -> None:
        self.options = options
        self.settings = Settings(options.controllers) if options.controllers else Settings()
        self.metrics = ControllerMetrics()
        self.provider: KubernetesProvider | None = None
        self.writer: StatusWriter | None = None
        self.election: Election | None = None
        self._tls: XdsTls | None = None
        self._securing: Securing | None = None
        self._fleets = Fleets(self._fleet_options, self._unread, options.issuer)
        self._applier: Applier | None = None
        self._bundle: Bundle | None = None
        self._leading = False
        self._stopping = asyncio.Event()
        self._first = asyncio.Event()
        self._made_known = asyncio.Event()
        self._made: dict[ObjectKey, frozenset[Owner]] = {}
        self._snapshot = Snapshot()
        self._resolver = Resolver(self.settings)
        self._resolution: Resolution | None = None
        self.proxies = Proxies(self._fleets.ports, address=options.bind_address)

    def request_stop(self) -> None:
        """End in good order, soon."""
        self._stopping.set()

    @property
    def registry(self) -> CollectorRegistry:
        return self.metrics.registry

    @property
    def ready(self) -> tuple[bool, str]:
        """Whether proxies can be served, and if not, what is missing."""
        if self._securing is not None and (obstacle := self._securing.waiting):
            return False, f"waiting for the certificate of the xDS port: {obstacle}"
        if self.provider is None or not self.provider.synced:
            kinds = ", ".join(self.provider.waiting_for[:5]) if self.provider is not None else "a connection"
            return False, f"waiting for the API server: {kinds}"
        if not self.proxies.listening:
            return False, "the xDS port does not listen yet"
        return True, "ready"

    async def run(self) -> None:
        """Serve until asked to stop. UserError where it cannot even start."""
        try:
            to = connection(self.options.kubeconfig, self.options.context, environment=os.environ, hint=_NO_CLUSTER)
            client = KubeClient(to, user_agent="gwanmun-controller")
        except KubeConfigError as error:
            raise UserError(str(error)) from None
        namespace = self.options.namespace or to.namespace
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(client)
            _stop_on_signals(self)
            await stack.enter_async_context(health_server(self.options.metrics_listen, self))
            works = asyncio.create_task(self._work(client, namespace))
            stopping = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait([works, stopping], return_when=asyncio.FIRST_COMPLETED)
                if works.done():
                    _raise_of(works)
                log.info("stopping")
            finally:
                works.cancel()
                stopping.cancel()
                await asyncio.gather(works, return_exceptions=True)

    async def _work(self, client: KubeClient, namespace: str) -> None:
        log.info("starting", server=client.server, namespace=namespace, controllers=list(self.settings.controller_names))
        names = _names(self.options.fleet.xds_address)
        self._tls = tls = XdsTls(client, XdsTlsOptions(namespace, self.options.xds_secret, names), clock=_utc_now)
        self._securing = Securing(tls, changed=self._authorities_changed)
        await self._securing.until_secure()
        self.provider = KubernetesProvider(client, KubernetesOptions(namespaces=self.options.namespaces), draw=random.random)
        events = EventWriter(client, clock=time.monotonic, now=_wall_time)
        self.writer = StatusWriter(
            client,
            WriterOptions(frozenset(self.settings.controller_names)),
            self.document_of,
            clock=time.monotonic,
            now=_wall_time,
            written=partial(_tell, events, namespaces=self.options.namespaces),
        )
        self._applier = Applier(
            client,
            self._fleets.objects,
            instance=self.options.fleet.instance,
            hindrance=self._fleets.hindrance,
            troubled=self._gateway_changed,
            given_up=partial(given_up, client, controllers=self.settings.controller_names),
            namespaces=self.options.namespaces,
        )
        self.election = Election(
            client,
            namespace=namespace,
            name=lease_name(self.options.fleet.instance),
            identity=self.options.identity,
            changed=self._lead,
            clock=time.monotonic,
            now=_utc_now,
        )
        self._bundle = Bundle(client, changed=self._classes_changed)
        labels = ours(self.options.fleet.instance)
        made = KubernetesProvider(client, metadata_of(MADE_KINDS, labels, self.options.namespaces), draw=random.random)
        self.metrics.add(
            Reading("gwanmun_objects", "Objects that are followed", self._counts, label="kind"),
            Reading("gwanmun_leading", "Whether this controller leads", lambda: {"": float(self._leading)}),
            *self.proxies.readings(),
            *watching((self.provider.stats, made.stats)),
            *writing(self.writer.stats, self._applier.stats),
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(self.provider))
            tasks.create_task(self._follow_made(made))
            tasks.create_task(self._serve(client, tls))
            tasks.create_task(self.writer.run())
            tasks.create_task(events.run())
            tasks.create_task(self._applier.run())
            tasks.create_task(self._securing.run())
            await self._bundle.look()
            tasks.create_task(self._bundle.run())
            await self._first.wait()  # whoever leads before it knows anything would find that nothing is wanted
            if self.options.leader_elect:
                tasks.create_task(self.election.run())
            else:
                self._lead(True)

    async def _follow(self, provider: KubernetesProvider) -> None:
        async with aclosing(provider.watch()) as batches:
            async for batch in batches:
                # Whose proxies there are says which of two Gateways they belong to, should both lay claim to them.
                await self._made_known.wait()
                self._take(batch)
                if not self._first.is_set():
                    log.info("synced", objects=provider.count())
                    # What was just built lives long: a collector that looks through it again and again pauses for 0.1 s.
                    gc.collect()
                    gc.freeze()
                    self._first.set()

    async def _follow_made(self, made: KubernetesProvider) -> None:
        """What there is of what we make; apart from all else, as nothing is resolved from it."""
        async with aclosing(made.watch()) as batches:
            async for batch in batches:
                self._notice(batch.objects)
                self._made_known.set()

    def _notice(self, changes: Mapping[ObjectKey, Object | None]) -> None:
        assert self._applier is not None
        self._applier.notice(changes)
        before, self._made = self._made, dict(self._made)
        for key, found in changes.items():
            if isinstance(found, Made):
                self._made[key] = owners_of(found)
            else:
                self._made.pop(key, None)
        if self._resolution is not None and self._made != before:
            self._update_fleets(self._resolution)

    def _take(self, batch: Batch) -> None:
        """One batch through the whole pipe."""
        assert self.writer is not None
        assert self._applier is not None
        began = time.perf_counter()
        if batch.objects:
            self._snapshot, changed = self._snapshot.apply(batch.objects)
            before, self._resolution = self._resolution, self._resolver.update(self._snapshot, changed)
            self.metrics.resolve_seconds.observe(time.perf_counter() - began)
            self._update_fleets(self._resolution)
            self.proxies.take(self._snapshot, self._resolution)
            if self._resolution is not before:
                for key in _changed_statuses(self._resolution, before):
                    self.writer.touch(key)
            for key in _listener_sets(self._snapshot, changed):  # what is said of those without a parent resolve does not know
                self.writer.touch(key)
            self.metrics.publish_seconds.observe(time.perf_counter() - began)
        self.writer.observe(batch.present)

    def _update_fleets(self, resolution: Resolution) -> None:
        assert self.writer is not None
        assert self._applier is not None
        redone, moved = self._fleets.update(self._snapshot, resolution, self._made)
        self._applier.touch(*redone)
        self.proxies.belong(self._fleets.accounts())
        for gateway in moved:
            self.writer.touch(ObjectKey(GATEWAY_GROUP, "Gateway", *gateway))

    def document_of(self, key: ObjectKey, present: Present) -> dict[str, Any] | None:
        """The status that an object should have; None where we have nothing to say about it."""
        status = self._resolution.statuses.get(key) if self._resolution is not None else None
        if status is None:
            ours = MANAGER in present.authors
            return parentless(self._snapshot.get(key), self._snapshot, self._unseen) if ours else None
        document, named = status_document(status), self._snapshot.get(key)
        if isinstance(named, GatewayClass):
            _, missing = class_parameters(self._snapshot, named)
            if (problem := self._fleets.cannot_read(missing)) is not None:
                document = unread(document, f"spec.parametersRef: {problem}")
            crds = self._bundle.problem if self._bundle is not None else None
            return unsupported(document, crds) if crds is not None else document
        if isinstance(named, Gateway):
            _, missing = own_parameters(self._snapshot, named)
            if (problem := self._fleets.cannot_read(missing)) is not None:
                document = unread(document, f"spec.infrastructure.parametersRef: {problem}")
            return placed(document, self._placement(key.namespaced_name))
        return document

    def _unseen(self, key: ObjectKey) -> bool:
        """Whether an object that is not known may be there all the same."""
        return self.provider is None or self.provider.unread(key.group, key.kind, key.name, key.namespace) is not None

    def _unread(self, parameters: ParametersKey) -> Problem | None:
        found = self.provider.unread(parameters.group, "GatewayClassConfig", parameters.name) if self.provider else None
        if found is None:
            return None
        subject = f"GatewayClassConfig {parameters.name} cannot be read: {found.problem}"
        return Problem(f"{subject}; proxies that are there stay as they are", found.grant, serving=False)

    def _placement(self, gateway: NamespacedName) -> Placement:
        """Where the Gateway is; what keeps its proxies from being made says more than that they are not there."""
        where = self._fleets.placement(gateway)
        problems = self._applier.problems(gateway) if self._applier is not None else ()
        # What a listener lacks for want of a certificate, its own conditions say.
        hindrances = [str(problem) for problem in problems if problem.serving]
        return replace(where, problem=("Invalid", "; ".join(hindrances[:_MOST_PROBLEMS]))) if hindrances else where

    def _gateway_changed(self, gateway: NamespacedName) -> None:
        assert self.writer is not None
        key = ObjectKey(GATEWAY_GROUP, "Gateway", *gateway)
        self.writer.touch(key)
        if isinstance(named := self._snapshot.get(key), Gateway):  # its class may suffer from the same
            self.writer.touch(ObjectKey(GATEWAY_GROUP, "GatewayClass", "", named.spec.gateway_class_name))

    def _classes_changed(self) -> None:
        assert self.writer is not None
        for key in self._snapshot.find(IndexKey("kind", (GATEWAY_GROUP, "GatewayClass"))):
            self.writer.touch(key)

    async def _serve(self, client: KubeClient, tls: XdsTls) -> None:
        await self._first.wait()
        await self.proxies.serve(client, tls, self.options.xds_listen)

    def _lead(self, leading: bool) -> None:
        self._leading = leading
        if self.writer is not None:
            self.writer.lead(leading)
        if self._applier is not None:
            self._applier.lead(leading)

    def _authorities_changed(self) -> None:
        if self._applier is not None:
            self._applier.touch(*self._fleets.gateways)

    def _fleet_options(self) -> FleetOptions:
        return replace(self.options.fleet, xds_ca=self._tls.bundle if self._tls is not None else "")

    def _counts(self) -> dict[str, float]:
        return dict(self.provider.count()) if self.provider is not None else {}


def lease_name(instance: str) -> str:
    """Each installation elects a leader of its own, also where two are in one namespace. The chart grants this name."""
    return f"{_LEASE}.{instance if _SUBDOMAIN.fullmatch(instance) else dns_label(instance)}"


def _tell(
    events: EventWriter, key: ObjectKey, present: Present, document: Mapping[str, Any], *, namespaces: Collection[str]
) -> None:
    """Events of what was written. Those of objects without a namespace go to `default`, where a controller with namespaces of
    its own may have no right to write any."""
    if key.namespace or not namespaces or "default" in namespaces:
        events.tell(key, present, notes(key, present.status, document))


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _wall_time() -> str:
    return _utc_now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _raise_of(works: "asyncio.Task[None]") -> None:
    """What the parts ended with: the user's mistake by itself, a mistake of ours with everything around it."""
    error = works.exception()
    if isinstance(error, BaseExceptionGroup):
        mistakes = error.subgroup(UserError)
        if mistakes is not None:
            raise mistakes.exceptions[0]
    works.result()


def _listener_sets(snapshot: Snapshot, changed: Iterable[Hashable]) -> Iterable[ObjectKey]:
    """Those that name a Gateway that has changed, come or gone."""
    gateways = (key for key in changed if isinstance(key, ObjectKey) and key.kind == Gateway.KIND)
    return [listener_set for gateway in gateways for listener_set in snapshot.find(IndexKey("gateway", gateway))]


def _changed_statuses(now: Resolution, before: Resolution | None) -> Iterable[ObjectKey]:
    """Whose status is another one now, those included that have none any more."""
    if before is None:
        return list(now.statuses)
    if now.statuses is before.statuses:
        return []
    changed = [key for key, status in now.statuses.items() if before.statuses.get(key) is not status]
    return [*changed, *(key for key in before.statuses if key not in now.statuses)]


def _names(address: str) -> tuple[str, ...]:
    """The DNS names of "gwanmun.gwanmun-system.svc:18000": also the shorter and the longer one."""
    host = address.rpartition(":")[0]
    if host.endswith(".svc"):
        return host, f"{host}.cluster.local", host.removesuffix(".svc")
    return (host,) if host and not host.replace(".", "").isdigit() and ":" not in host else ()


def _stop_on_signals(controller: Controller) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError, RuntimeError):  # not the main thread: whoever runs us asks by request_stop
            loop.add_signal_handler(number, controller.request_stop)
