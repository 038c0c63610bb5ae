"""`Scopes`: one resolved model in, the resources of each group of proxies out. A scope is a Gateway on a node.

All scopes of a zone share one translation, and one set of resources as long as no backend prefers nodes. A scope exists from
the moment when the first proxy asks for it, so that zones and nodes without proxies cost nothing. No socket; what is kept is
the step before, which makes a step cost what has changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple, TypeVar

from gwanmun import ir
from gwanmun.app.pipeline import with_changes
from gwanmun.infra.podports import PodPorts
from gwanmun.names import NamespacedName
from gwanmun.resolve.model import Reach, Resolution
from gwanmun.xds.options import Binding, Options, PortKey
from gwanmun.xds.translate import Translation, translate, translate_at
from gwanmun.xds.types import Problem
from gwanmun.xds_server.resources import Changes, Resource, ResourceSet

K = TypeVar("K")
V = TypeVar("V")


class ScopeKey(NamedTuple):
    """Proxies that are given the same: those of a Gateway on one node of a zone (empty: not known)."""

    gateway: NamespacedName
    zone: str
    node: str = ""

    def __str__(self) -> str:
        place = f"{self.zone}/{self.node}" if self.node else self.zone
        return f"{self.gateway}@{place}" if place else str(self.gateway)


class Update(NamedTuple):
    """A scope's next set. `changes` are against the set before."""

    scope: ScopeKey
    resources: ResourceSet
    changes: Changes


class _ZoneKey(NamedTuple):
    gateway: NamespacedName
    zone: str


@dataclass(slots=True)
class _Zone:
    """What all scopes of a zone share."""

    options: Options
    model: ir.Model | None = None
    translation: Translation | None = None
    resources: ResourceSet = field(default_factory=ResourceSet)


@dataclass(slots=True)
class _Scope:
    """`own` is what its proxies are given in place of the zone's: nothing where no backend prefers nodes."""

    translation: Translation | None = None
    own: ResourceSet = field(default_factory=ResourceSet)
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
    """Owns the last model and the last translation of each zone, and what is another one on each node."""

    def __init__(self, options: Options, *, address: str, ports: Callable[[NamespacedName], PodPorts]) -> None:
        """`options`: all but place and bindings; `address`: where listeners are bound in a pod, as 0.0.0.0; `ports` says
        which port of the pod serves each port of a Gateway."""
        self._options = options
        self._address = address
        self._ports = ports
        self._resolution: Resolution | None = None
        self._zones: dict[_ZoneKey, _Zone] = {}
        self._scopes: dict[ScopeKey, _Scope] = {}

    def __contains__(self, key: ScopeKey) -> bool:
        return key in self._scopes

    @property
    def keys(self) -> tuple[ScopeKey, ...]:
        return tuple(self._scopes)

    def translation(self, gateway: NamespacedName) -> Translation | None:
        """What one of the Gateway's zones is given; None where no proxy has asked yet."""
        found = (zone.translation for key, zone in self._zones.items() if key.gateway == gateway)
        return next(found, None)

    def problems(self, gateway: NamespacedName) -> tuple[Problem, ...]:
        """What could not be expressed."""
        translation = self.translation(gateway)
        return translation.problems if translation is not None else ()

    def open(self, key: ScopeKey) -> Update | None:
        """Begin a scope; None where the Gateway is not served or the scope is there already."""
        if key in self._scopes or self._resolution is None or key.gateway not in self._resolution.model.gateways:
            return None
        place = _ZoneKey(key.gateway, key.zone)
        if place not in self._zones:
            self._zones[place] = _Zone(replace(self._options, zone=key.zone))
            self._advance(place, self._resolution)
        scope = self._scopes[key] = _Scope()
        _follow(scope, self._zones[place], key.node, {})
        return Update(key, scope.resources, scope.resources.changes_since(ResourceSet()))

    def close(self, key: ScopeKey) -> None:
        """End a scope that no proxy is left in. What its zone shares is kept for the next one."""
        del self._scopes[key]

    def feed(self, resolution: Resolution) -> Iterator[Update | ScopeKey]:
        """What changes with this resolution: an update of a scope, or the key of one whose Gateway is no more served."""
        self._resolution = resolution
        advanced: dict[_ZoneKey, Changes] = {}
        for place in list(self._zones):
            if place.gateway not in resolution.model.gateways:
                del self._zones[place]
            elif (changes := self._advance(place, resolution)) is not None:
                advanced[place] = changes
        for key, scope in list(self._scopes.items()):
            place = _ZoneKey(key.gateway, key.zone)
            if place not in self._zones:
                del self._scopes[key]
                yield key
            elif place in advanced and (changes := _follow(scope, self._zones[place], key.node, advanced[place])):
                yield Update(key, scope.resources, changes)

    def _advance(self, place: _ZoneKey, resolution: Resolution) -> Changes | None:
        """Bring a zone up to date; what that has changed, or None where there is nothing new. Something new that changes
        nothing for the zone may change something for its nodes."""
        zone = self._zones[place]
        model = model_of(place.gateway, resolution.model, resolution.reach[place.gateway], zone.model)
        options = _with_bindings(zone.options, bindings(place.gateway, self._ports(place.gateway), self._address))
        if model is zone.model and options is zone.options:
            return None
        zone.options, zone.model = options, model
        zone.translation = translate(model, options, zone.translation)
        zone.resources = with_changes(zone.resources, zone.translation)
        return {url: tuple(names) for url, names in zone.translation.changed.items() if names}


def _follow(scope: _Scope, zone: _Zone, node: str, changes: Changes) -> Changes:
    """Bring a scope up to date with its zone, in which `changes` have been made; what that has changed.

    Backends that prefer nodes come and go inside the scope: no proxy has to leave it, and its stream, for that.
    """
    assert zone.translation is not None
    if node and zone.translation.cache.by_node:
        scope.translation = translate_at(node, zone.translation, scope.translation)
        scope.own = with_changes(scope.own, scope.translation)
        touched: Mapping[str, Iterable[str]] = scope.translation.changed
    elif scope.translation is not None:
        touched = {url: tuple(scope.own.of(url)) for url in scope.own.type_urls()}
        scope.translation, scope.own = None, ResourceSet()
    else:
        scope.resources = zone.resources
        return changes
    before, scope.resources = scope.resources, _over(zone.resources, scope.own)
    return _differing(before, scope.resources, changes, touched)


def _over(zone: ResourceSet, own: ResourceSet) -> ResourceSet:
    """The zone's set with a scope's own resources in their places."""
    for url in own.type_urls():
        shared = zone.of(url)
        edits = {name: one for name, one in own.of(url).items() if shared[name].version != one.version}
        if edits:
            zone = zone.replace(url, edits)
    return zone


def _differing(before: ResourceSet, after: ResourceSet, *suspects: Mapping[str, Iterable[str]]) -> Changes:
    """Which of the suspects have changed."""
    found: dict[str, tuple[str, ...]] = {}
    for url in {url for suspected in suspects for url in suspected}:
        old, new = before.of(url), after.of(url)
        names = dict.fromkeys(chain.from_iterable(suspected.get(url, ()) for suspected in suspects))
        if changed := tuple(name for name in names if _version(old, name) != _version(new, name)):
            found[url] = changed
    return found


def _version(resources: Mapping[str, Resource], name: str) -> str | None:
    found = resources.get(name)
    return found.version if found is not None else None


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
