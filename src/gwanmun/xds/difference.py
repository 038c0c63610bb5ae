"""What has changed from one mapping to the next, by identity: values that have not changed are the same objects."""

import operator
from collections.abc import Iterable, Mapping
from itertools import compress
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
_NOTHING = object()


def differing(new: Mapping[K, V], old: Mapping[K, V]) -> tuple[Iterable[K], Iterable[K]]:
    """The keys whose values are new or other ones, and the keys that have gone.

    Mostly both have the same keys in the same order; then no key is hashed (0.2 ms for 5,000, where hashing takes 3).
    """
    if new is old:
        return (), ()
    if len(new) == len(old) and all(map(operator.is_, new, old)):
        return list(compress(new, map(operator.is_not, new.values(), old.values()))), ()
    changed = [key for key, value in new.items() if old.get(key, _NOTHING) is not value]
    return changed, [key for key in old if key not in new]
