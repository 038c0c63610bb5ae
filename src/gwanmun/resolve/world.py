"""What resolve reads: the snapshot through the memo graph, and the few settings that are not manifests."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from gwanmun.memo import Query
from gwanmun.names import ObjectKey
from gwanmun.resources import IndexKey, Snapshot

T = TypeVar("T")

OWN_CONTROLLER = "gwanmun.dev/gateway-controller"
KGATEWAY_CONTROLLER = "kgateway.dev/kgateway-controller"  # the specification's name for the same role


@dataclass(frozen=True, slots=True)
class Settings:
    """`controller_names` are those of GatewayClasses that are ours."""

    controller_names: tuple[str, ...] = (OWN_CONTROLLER, KGATEWAY_CONTROLLER)


@dataclass(frozen=True, slots=True)
class World:
    snapshot: Snapshot
    settings: Settings = Settings()

    def source(self, key: Hashable) -> Any:
        """The graph's inputs: an object by `ObjectKey`, index members by `IndexKey`, the settings by their type."""
        if isinstance(key, ObjectKey):
            return self.snapshot.get(key)
        if isinstance(key, IndexKey):
            return self.snapshot.find(key)
        assert key is Settings
        return self.settings


def read(q: Query, key: ObjectKey, kind: type[T]) -> T | None:
    """The object of that kind, or None where there is none."""
    obj = q.read(key)
    return obj if isinstance(obj, kind) else None


def find(q: Query, index: str, value: Hashable) -> tuple[ObjectKey, ...]:
    """The members of an index entry (`resources.snapshot.INDEXES`), sorted."""
    return cast(tuple[ObjectKey, ...], q.read(IndexKey(index, value)))


def settings(q: Query) -> Settings:
    return cast(Settings, q.read(Settings))
