"""A graph of memoised pure functions: after a change only what depends on it is computed again.

A *cell* is a function applied to arguments, `fn(query, *args)`. It reads other cells with `query.get(fn, *args)` and the
outside world with `query.read(key)`, and both are recorded. Changing an input marks what depends on it; asking for a cell
then recomputes just the marked ones, and a cell whose new value equals the old stops the change there (early cut-off).

Cells whose value is a dict over many keys (all hosts of a listener, all backends) use `query.collect`: only the entries
that changed are recomputed, the rest is a plain dict copy. So the price of a change follows what changed, not what exists.

Rules for cell functions: pure, total (they must cope with an input that has gone), values immutable and comparable.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

P = ParamSpec("P")
V = TypeVar("V")
K = TypeVar("K", bound=Hashable)

_CLEAN: Final = 0
_CHECK: Final = 1  # something below may have changed
_DIRTY: Final = 2  # something read directly has changed
_RUNNING: Final = 3

_NOTHING: Final = object()

_EMPTY: Final[dict["_Cell", None]] = {}
"""Stands for a dict of cells until something is put there, which is never into this one: of most cells nothing has changed,
and a hundred thousand empty dicts would be 6 MB."""


class _Cell:
    __slots__ = ("args", "changed", "dependents", "deps", "fn", "keys_fn", "pending", "state", "value")

    def __init__(self, fn: Callable[..., Any] | None, args: tuple[Any, ...], keys_fn: Callable[..., Any] | None) -> None:
        self.fn = fn  # None for an input
        self.args = args
        self.keys_fn = keys_fn  # set for a collecting cell
        self.value: Any = _NOTHING
        self.state = _DIRTY
        self.deps = _EMPTY
        self.dependents: dict[_Cell, None] = {}
        self.pending = _EMPTY  # dependencies that are not clean
        self.changed = _EMPTY  # dependencies whose value has changed since this one was computed

    def await_(self, dependency: "_Cell") -> None:
        """Note a dependency that is not clean."""
        if self.pending is _EMPTY:
            self.pending = {}
        self.pending[dependency] = None

    def hear_of(self, dependency: "_Cell") -> None:
        """Note a dependency whose value has changed."""
        if self.changed is _EMPTY:
            self.changed = {}
        self.changed[dependency] = None


class Query:
    """What a cell function is given to read through; every read becomes a dependency of that cell."""

    __slots__ = ("_cell", "_graph")

    def __init__(self, graph: "Graph", cell: _Cell) -> None:
        self._graph = graph
        self._cell = cell

    def get(self, fn: Callable[Concatenate["Query", P], V], *args: P.args, **_: P.kwargs) -> V:
        """The value of another cell."""
        # What `_cell` and `_use` do, without calling them: a first resolve of thousands of routes is mostly this.
        graph, key = self._graph, (fn, None, args)
        cell = graph._cells.get(key)
        if cell is None:
            cell = graph._cells[key] = _Cell(fn, args, None)
        if cell.state != _CLEAN:
            graph._refresh(cell)
        user = self._cell
        user.deps[cell] = None
        cell.dependents[user] = None
        value: V = cell.value
        return value

    def read(self, key: Hashable) -> Any:
        """An input's value, as the graph's `source` gives it (None where there is nothing)."""
        cell, user = self._graph._input(key), self._cell
        user.deps[cell] = None
        cell.dependents[user] = None
        return cell.value

    def collect(
        self,
        fn: Callable[["Query", K], V],
        keys: Callable[Concatenate["Query", P], Iterable[K]],
        *args: P.args,
        **_: P.kwargs,
    ) -> Mapping[K, V]:
        """`{key: fn(key)}` for the keys that the cell `keys(*args)` gives, in their order; updated entry by entry."""
        return cast(Mapping[K, V], self._graph._use(self._cell, self._graph._cell(fn, args, keys)))


class Graph:
    """Owns the cells. `source(key)` gives the present value of an input; it is called once a change."""

    def __init__(self, source: Callable[[Hashable], Any]) -> None:
        self.source = source
        self._cells: dict[Hashable, _Cell] = {}
        self._inputs: dict[Hashable, _Cell] = {}
        self._roots: set[_Cell] = set()
        self._orphans: dict[_Cell, None] = {}

    def get(self, fn: Callable[Concatenate[Query, P], V], *args: P.args, **_: P.kwargs) -> V:
        """The present value of a root cell; it stays computed from then on."""
        cell = self._cell(fn, args, None)
        self._roots.add(cell)
        self._refresh(cell)
        return cast(V, cell.value)

    def change(self, keys: Iterable[Hashable]) -> None:
        """Tell that these inputs may have changed. Nothing is computed until something is asked for."""
        for key in keys:
            cell = self._inputs.get(key)
            if cell is None:
                continue  # nobody has read it
            value = self.source(key)
            if value is cell.value or value == cell.value:
                continue
            cell.value = value
            for dependent in cell.dependents:
                dependent.hear_of(cell)
                self._mark(dependent, _DIRTY)

    def sweep(self) -> None:
        """Forget cells that nothing reads any more (a deleted route's, say)."""
        while self._orphans:
            cell, _ = self._orphans.popitem()
            if cell.dependents or cell in self._roots:
                continue
            for dep in cell.deps:
                self._unlink(cell, dep)
            cell.deps = {}
            if cell.fn is None:
                self._inputs.pop(cell.args[0], None)
            else:
                self._cells.pop((cell.fn, cell.keys_fn, cell.args), None)

    def __len__(self) -> int:
        return len(self._cells)

    def _cell(self, fn: Callable[..., Any], args: tuple[Any, ...], keys_fn: Callable[..., Any] | None) -> _Cell:
        key = (fn, keys_fn, args)
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell(fn, args, keys_fn)
        return cell

    def _input(self, key: Hashable) -> _Cell:
        cell = self._inputs.get(key)
        if cell is None:
            cell = self._inputs[key] = _Cell(None, (key,), None)
            cell.value = self.source(key)
            cell.state = _CLEAN
        return cell

    def _use(self, user: _Cell, cell: _Cell) -> Any:
        if cell.state != _CLEAN:
            self._refresh(cell)
        user.deps[cell] = None
        cell.dependents[user] = None
        return cell.value

    def _mark(self, cell: _Cell, state: int) -> None:
        """Mark a cell and, where it was clean, everything above it as possibly out of date."""
        was, cell.state = cell.state, max(cell.state, state)
        if was != _CLEAN:
            return
        stack = [cell]
        while stack:
            below = stack.pop()
            for above in below.dependents:
                above.await_(below)
                if above.state == _CLEAN:
                    above.state = _CHECK
                    stack.append(above)

    def _refresh(self, cell: _Cell) -> None:
        if cell.state == _CHECK:
            while cell.pending and cell.state == _CHECK:
                below, _ = cell.pending.popitem()
                self._refresh(below)  # makes this cell dirty where the value has changed
            if cell.state == _CHECK:
                cell.state = _CLEAN
        if cell.state == _CLEAN:
            return
        assert cell.state == _DIRTY, f"cell {cell.fn} depends on itself"
        self._compute(cell)

    def _compute(self, cell: _Cell) -> None:
        assert cell.fn is not None
        cell.state = _RUNNING
        old = cell.value
        try:
            if cell.keys_fn is None:
                value = self._run(cell, cell.fn, Query(self, cell), *cell.args)
            else:
                value = self._collect(cell, cell.keys_fn)
        except BaseException:
            cell.state = _DIRTY
            cell.value = _NOTHING  # a later success is news to everything above
            raise
        cell.pending = cell.changed = _EMPTY
        cell.state = _CLEAN
        if old is not _NOTHING and (value is old or value == old):
            return  # keep the old object: identity tells "unchanged" to what comes after
        cell.value = value
        for above in cell.dependents:
            above.hear_of(cell)
            if above.state == _CHECK:
                above.state = _DIRTY
            elif above.state == _CLEAN:
                self._mark(above, _DIRTY)

    def _run(self, cell: _Cell, compute: Callable[..., Any], *args: Any) -> Any:
        before, cell.deps = cell.deps, {}
        value = compute(*args)
        for dep in before:
            if dep not in cell.deps:
                self._unlink(cell, dep)
        return value

    def _collect(self, cell: _Cell, keys_fn: Callable[..., Any]) -> dict[Any, Any]:
        keys = self._cell(keys_fn, cell.args, None)
        if keys.state != _CLEAN:
            self._refresh(keys)
        if cell.value is _NOTHING:
            return cast(dict[Any, Any], self._run(cell, self._collect_all, cell, keys))
        if keys in cell.changed:
            return self._recollect(cell, keys)
        while cell.pending:  # an entry that still has to settle may add itself to what has changed
            self._refresh(cell.pending.popitem()[0])
        value = dict(cell.value)
        for entry in cell.changed:
            value[entry.args[0]] = entry.value
        return value

    def _collect_all(self, cell: _Cell, keys: _Cell) -> dict[Any, Any]:
        return {key: self._use(cell, self._cell(cell.fn, (key,), None)) for key in self._use(cell, keys)}  # type: ignore[arg-type]  # not None

    def _recollect(self, cell: _Cell, keys: _Cell) -> dict[Any, Any]:
        """The dict over other keys than before: entries that stay are neither looked up nor linked anew."""
        while cell.pending:
            self._refresh(cell.pending.popitem()[0])
        fresh = {entry.args[0]: entry.value for entry in cell.changed if entry is not keys}
        old: dict[Any, Any] = cell.value
        value: dict[Any, Any] = {}
        added = 0
        for key in keys.value:
            found = old.get(key, _NOTHING)
            if found is _NOTHING:
                if key in value:
                    continue
                found = self._use(cell, self._cell(cell.fn, (key,), None))  # type: ignore[arg-type]  # not None
                added += 1
            value[key] = found
        value.update((key, entry) for key, entry in fresh.items() if key in value)
        if len(value) - added < len(old):
            for key in old.keys() - value.keys():
                entry = self._cell(cell.fn, (key,), None)  # type: ignore[arg-type]  # not None
                cell.deps.pop(entry, None)
                self._unlink(cell, entry)
        return value

    def _unlink(self, user: _Cell, dep: _Cell) -> None:
        dep.dependents.pop(user, None)
        if not dep.dependents:
            self._orphans[dep] = None
