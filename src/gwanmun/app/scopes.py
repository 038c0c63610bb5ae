"""`Scopes`: one resolved model in, the resources of each group of proxies out. A scope is a Gateway in a zone.

A scope exists from the moment when the first proxy asks for it, so that zones without proxies cost nothing. No socket; what
is kept is the step before, which makes a step cost what has changed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from gwanmun import ir
from gwanmun.app.pipeline import with_changes
from gwanmun.infra.podports import PodPorts
from gwanmun.names import NamespacedName
from gwanmun.resolve.model import Reach, Resolution
from gwanmun.xds.options import Binding, Options, PortKey
from gwanmun.xds.translate import Translation, translate
from gwanmun.xds.types import Problem
from gwanmun.xds_server.resources import Changes, ResourceSet

K = TypeVar("K")
V = TypeVar("V")


class ScopeKey(NamedTuple):
    """Proxies that are given the same: those of a Gateway in one zone (empty: not known)."""

    gateway: NamespacedName
    zone: str

    def __str__(self) -> str:
        return f"{self.gateway}@{self.zone}" if self.zone else str(self.gateway)


class Update(NamedTuple):
    """A scope's next set. `changes` are against the set before."""

    scope: ScopeKey
    resources: ResourceSet
    changes: Changes


@dataclass(slots=True)
class _Scope:
    options: Options
    model: ir.Model | None = None
    translation: Translation | None = None
    resources: ResourceSet = field(default_factory=ResourceSet)


def model_of(gateway: NamespacedName, model: ir.Model, reach: Reach, previous: ir.Model | None = None) -> ir.Model:
    """The part of the model that one Gateway needs. `previous` itself, or its mappings, where nothing has changed in them."""
    before = previous or ir.Model()
    made = ir.Model(
        gateways=_part(before.gateways, model.gateways, frozenset((gateway,))),
        backends=_part(before.backends, model.backends, reach.backends),
        endpoints=_part(before.endpoints, model.endpoints, reach.backends),
        certificates=_part(before.certificates, model.certificates, reach.certificates),
    )
    same = (
        made.gateways is before.gateways
        and made.backends is before.backends
        and made.endpoints is before.endpoints
        and made.certificates is before.certificates
    )
    return before if same and previous is not None else made


class Scopes:
    """Owns the last model and the last translation of each scope."""

    def __init__(self, options: Options, *, address: str, ports: Callable[[NamespacedName], PodPorts]) -> None:
        """`options`: all but zone and bindings; `address`: where listeners are bound in a pod, as 0.0.0.0; `ports` says
        which port of the pod serves each port of a Gateway."""
        self._options = options
        self._address = address
        self._ports = ports
        self._resolution: Resolution | None = None
        self._scopes: dict[ScopeKey, _Scope] = {}

    def __contains__(self, key: ScopeKey) -> bool:
        return key in self._scopes

    @property
    def keys(self) -> tuple[ScopeKey, ...]:
        return tuple(self._scopes)

    def translation(self, gateway: NamespacedName) -> Translation | None:
        """What one of the Gateway's scopes is given; None where no proxy has asked yet."""
        found = (scope.translation for key, scope in self._scopes.items() if key.gateway == gateway)
        return next(found, None)

    def problems(self, gateway: NamespacedName) -> tuple[Problem, ...]:
        """What could not be expressed."""
        translation = self.translation(gateway)
        return translation.problems if translation is not None else ()

    def open(self, key: ScopeKey) -> Update | None:
        """Begin a scope; None where the Gateway is not served or the scope is there already."""
        if key in self._scopes or self._resolution is None or key.gateway not in self._resolution.model.gateways:
            return None
        self._scopes[key] = _Scope(replace(self._options, zone=key.zone))
        return self._advance(key, self._resolution)

    def feed(self, resolution: Resolution) -> Iterator[Update | ScopeKey]:
        """What changes with this resolution: an update of a scope, or the key of one whose Gateway is no more served."""
        self._resolution = resolution
        for key in list(self._scopes):
            if key.gateway not in resolution.model.gateways:
                del self._scopes[key]
                yield key
            elif update := self._advance(key, resolution):
                yield update

    def _advance(self, key: ScopeKey, resolution: Resolution) -> Update | None:
        scope = self._scopes[key]
        model = model_of(key.gateway, resolution.model, resolution.reach[key.gateway], scope.model)
        options = _with_bindings(scope.options, bindings(key.gateway, self._ports(key.gateway), self._address))
        if model is scope.model and options is scope.options:
            return None
        scope.options = options
        first, scope.model = scope.translation is None, model
        scope.translation = translate(model, scope.options, scope.translation)
        scope.resources = with_changes(scope.resources, scope.translation)
        changes = {url: tuple(names) for url, names in scope.translation.changed.items() if names}
        return Update(key, scope.resources, changes) if changes or first else None


def bindings(gateway: NamespacedName, ports: PodPorts, address: str) -> dict[PortKey, tuple[Binding, ...]]:
    """Every port of the Gateway on its port of the pod; clients know it by its own number."""
    return {(gateway, number, transport): (Binding(address, port, number),) for (number, transport), port in ports.items()}


def _with_bindings(options: Options, bound: Mapping[PortKey, tuple[Binding, ...]]) -> Options:
    return options if options.bindings == bound else replace(options, bindings=bound)


def _part(before: Mapping[K, V], whole: Mapping[K, V], keys: frozenset[K]) -> Mapping[K, V]:
    """The entries of `whole` under these keys: `before` where those are the same objects, `whole` where that is all of it."""
    if whole is before:
        return before
    if len(keys) == len(whole) and all(key in keys for key in whole):
        part: Mapping[K, V] = whole
    else:
        part = {key: whole[key] for key in keys if key in whole}
    if len(before) == len(part) and all(before.get(key) is value for key, value in part.items()):
        return before
    return part
