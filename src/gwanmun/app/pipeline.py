"""`Pipeline`: changed manifests in, what the proxies are to hold out. The one way that data flows, in one place.

No socket and no file: providers feed it, the caller publishes what it gives. Its state is the previous step, which makes a
step cost what has changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gwanmun.api import Object
from gwanmun.infra.ports import LocalBinding, Place, PortKey, PortOptions, PortPlan, Unusable, plan_ports
from gwanmun.names import ObjectKey
from gwanmun.providers import ServiceBinding, SourceProblem, bound_slices, difference
from gwanmun.resolve.model import Resolution, Resolver
from gwanmun.resolve.world import Settings
from gwanmun.resources import Snapshot
from gwanmun.xds.options import Binding, Options
from gwanmun.xds.options import PortKey as EnvoyPort
from gwanmun.xds.translate import Translation, translate
from gwanmun.xds_server.resources import Need, Resource, ResourceSet, resource


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """`envoy` is what is known of the proxy's place but for the port bindings, which `ports` and the Gateways decide."""

    settings: Settings
    services: Sequence[ServiceBinding]
    ports: PortOptions
    envoy: Options


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything at one moment: what is declared, what was resolved, where it is bound, and what Envoy is given."""

    snapshot: Snapshot
    resolution: Resolution
    ports: PortPlan
    translation: Translation
    resources: ResourceSet
    unbound: tuple[SourceProblem, ...]


class Pipeline:
    """Owns the snapshot and the last picture."""

    def __init__(
        self,
        options: PipelineOptions,
        *,
        unusable: Callable[[Place], Unusable | None],
        bound_before: Mapping[PortKey, tuple[LocalBinding, ...]],
    ) -> None:
        self._options = options
        self._unusable = unusable
        self._bound = bound_before
        self._objects: dict[ObjectKey, Object] = {}
        self._slices: dict[ObjectKey, Object] = {}
        self._snapshot = Snapshot()
        self._resolver = Resolver(options.settings)
        self._translation: Translation | None = None
        self._resources = ResourceSet()

    def feed(self, changes: Mapping[ObjectKey, Object | None]) -> Picture:
        """The next picture. `changes` are those of the manifests; None takes an object away."""
        unbound: list[SourceProblem] = []
        if self._options.services:
            for key, obj in changes.items():
                if obj is None:
                    self._objects.pop(key, None)
                else:
                    self._objects[key] = obj
            slices, unbound = bound_slices(self._options.services, self._objects)
            changes = {**difference(self._slices, slices), **changes}
            self._slices = slices
        self._snapshot, changed = self._snapshot.apply(changes)
        resolution = self._resolver.update(self._snapshot, changed)
        plan = plan_ports(
            resolution.model.gateways.values(), options=self._options.ports, previous=self._bound, unusable=self._unusable
        )
        self._bound = plan.bindings
        envoy = replace(self._options.envoy, bindings=envoy_bindings(plan))
        self._translation = translate(resolution.model, envoy, self._translation)
        self._resources = with_changes(self._resources, self._translation)
        return Picture(self._snapshot, resolution, plan, self._translation, self._resources, tuple(unbound))


def envoy_bindings(plan: PortPlan) -> dict[EnvoyPort, tuple[Binding, ...]]:
    """The plan as the translation to Envoy takes it."""
    return {
        key: tuple(Binding(binding.address, binding.port, binding.advertised) for binding in bound)
        for key, bound in plan.bindings.items()
    }


def with_changes(resources: ResourceSet, translation: Translation) -> ResourceSet:
    """The set after a translation, from the set before it: only what has changed is hashed anew."""
    for type_url, names in translation.changed.items():
        bodies, named = translation.resources.get(type_url, {}), translation.needs.get(type_url, {})
        edits: dict[str, Resource | None] = {}
        for name in names:
            body = bodies.get(name)
            needs = (Need(*need) for need in named.get(name, ()))
            edits[name] = None if body is None else resource(name, body, needs)
        resources = resources.replace(type_url, edits)
    return resources
