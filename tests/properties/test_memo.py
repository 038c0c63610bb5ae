"""Is the memo graph's answer always what computing everything anew would give, and does it compute only what it must?"""

from collections.abc import Hashable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gwanmun.memo import Graph, Query

NAMES = ("a", "b", "c", "d", "e")


def number(q: Query, name: str) -> int | None:
    return q.read(("object", name))


def parity(q: Query, name: str) -> int | None:
    value = q.get(number, name)
    return None if value is None else value % 2


def present(q: Query) -> tuple[str, ...]:
    return tuple(name for name in q.read("names") if q.get(parity, name) is not None)


def odd(q: Query, name: str) -> tuple[str, bool]:
    return name, q.get(parity, name) == 1


def total(q: Query) -> tuple[dict[str, Any], int]:
    flags = q.collect(odd, present)
    return dict(flags), sum(q.get(number, name) or 0 for name in flags)


class World:
    def __init__(self) -> None:
        self.objects: dict[str, int] = {}
        self.reads = 0

    def source(self, key: Hashable) -> Any:
        self.reads += 1
        if key == "names":
            return tuple(sorted(self.objects))
        assert isinstance(key, tuple)
        return self.objects.get(key[1])


edits = st.lists(st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.integers(0, 5)), max_size=4), max_size=8)


@given(edits)
@settings(max_examples=300)
def test_incremental_equals_from_scratch(batches: list[list[tuple[str, int | None]]]) -> None:
    world = World()
    graph = Graph(world.source)
    for batch in batches:
        for name, value in batch:
            if value is None:
                world.objects.pop(name, None)
            else:
                world.objects[name] = value
        graph.change([*(("object", name) for name, _ in batch), "names"])
        assert graph.get(total) == Graph(world.source).get(total)
        graph.sweep()
        assert len(graph) <= 4 * len(NAMES) + 3


def test_a_change_that_changes_nothing_above_stops_there() -> None:
    world = World()
    world.objects = {"a": 1, "b": 2}
    graph = Graph(world.source)
    runs: list[str] = []

    def top(q: Query) -> int:
        runs.append("top")
        return sum(q.get(parity, name) or 0 for name in q.read("names"))

    assert graph.get(top) == 1
    world.objects["a"] = 3  # still odd
    graph.change([("object", "a")])
    assert graph.get(top) == 1
    assert runs == ["top"]


def test_a_collection_recomputes_only_the_entry_that_changed() -> None:
    world = World()
    world.objects = {f"o{i}": 0 for i in range(1000)}
    graph = Graph(world.source)
    computed: list[str] = []

    def entry(q: Query, name: str) -> int | None:
        computed.append(name)
        return q.get(number, name)

    def names(q: Query) -> tuple[str, ...]:
        return q.read("names")

    def everything(q: Query) -> Any:
        return q.collect(entry, names)

    graph.get(everything)
    computed.clear()
    before = graph.get(everything)
    world.objects["o7"] = 9
    graph.change([("object", "o7")])
    after = graph.get(everything)
    assert computed == ["o7"]
    assert after["o7"] == 9
    assert before["o7"] == 0  # values handed out earlier never change
    assert list(after) == list(before)
