"""`FileSet`: which objects a set of manifest files declares, file by file, without touching a disk.

A file that has become bad does not take anything away: what its broken documents said before stays in force until they
are mended, and the good documents beside them count at once. Where two files declare one object, the first path wins.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gwanmun.api import Object
from gwanmun.api.load import LoadResult, Problem
from gwanmun.names import ObjectKey
from gwanmun.resources import key_of


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Something wrong with a source of manifests as a whole: it is unreadable, too large, gone, or says a thing twice."""

    source: str
    message: str


@dataclass(frozen=True, slots=True)
class _File:
    """`held` are those of the objects that only an earlier text declares."""

    objects: Mapping[ObjectKey, Object]
    problems: tuple[Problem, ...]
    held: Mapping[ObjectKey, Object]


@dataclass(frozen=True, slots=True)
class FileSet:
    """Immutable: `put` and `remove` give the next one."""

    files: Mapping[str, _File] = field(default_factory=dict)

    def put(self, loaded: Mapping[str, LoadResult]) -> "FileSet":
        """The set with files read anew, by path; what their broken documents declared before stays."""
        return FileSet({**self.files, **{path: _read_anew(self.files.get(path), said) for path, said in loaded.items()}})

    def hold(self, path: str, objects: Iterable[Object]) -> "FileSet":
        """The set with what a file that has not been read yet said at an earlier time."""
        held = {key_of(obj): obj for obj in objects}
        return FileSet({**self.files, path: _File(held, (), held)})

    def remove(self, paths: Collection[str]) -> "FileSet":
        return FileSet({path: file for path, file in self.files.items() if path not in paths})

    def objects(self, missing: Collection[str] = ()) -> tuple[dict[ObjectKey, Object], list[SourceProblem]]:
        """All objects, and a problem for each that is declared twice.

        What is said by a file that is there counts before what a `missing` one said, which may only have been renamed.
        """
        found: dict[ObjectKey, Object] = {}
        origin: dict[ObjectKey, str] = {}
        problems = []
        for path, file in sorted(self.files.items(), key=lambda item: (item[0] in missing, item[0])):
            for key, obj in file.objects.items():
                if key in found:
                    if path not in missing:
                        message = f"{key} is also in {origin[key]}, which is used; this one is ignored"
                        problems.append(SourceProblem(path, message))
                    continue
                found[key], origin[key] = obj, path
        return found, problems

    def held(self) -> dict[str, tuple[Object, ...]]:
        """By path, what is in force though the file does not declare it as it is now."""
        return {path: tuple(file.held.values()) for path, file in self.files.items() if file.held}

    def problems(self) -> list[Problem]:
        return [problem for path in sorted(self.files) for problem in self.files[path].problems]


def _read_anew(before: _File | None, loaded: LoadResult) -> _File:
    declared = {key_of(item.object): item.object for item in loaded.objects}
    in_force = _still_in_force(before.objects, loaded) if before is not None else {}
    held = {key: obj for key, obj in in_force.items() if key not in declared}
    return _File({**held, **declared}, tuple(loaded.problems), held)


def _still_in_force(before: Mapping[ObjectKey, Object], loaded: LoadResult) -> dict[ObjectKey, Object]:
    """What a file declared before and a broken document of its new text may still mean.

    A document whose kind and name are those of an object keeps that object alone. One that cannot be read at all, or with a
    slip in the kind or the name itself, may be any of them.
    """
    names = {(key.kind, name): key for key in before for name in (key.name, _full_name(key))}
    broken = [(problem.kind, problem.name) for problem in loaded.problems if problem.severity == "error"]
    if any(subject not in names for subject in broken):
        return dict(before)
    return {names[subject]: before[names[subject]] for subject in broken}


def _full_name(key: ObjectKey) -> str:
    return str(key.namespaced_name)


def difference(old: Mapping[ObjectKey, Object], new: Mapping[ObjectKey, Object]) -> dict[ObjectKey, Object | None]:
    """The changes that lead from one set of objects to another; None stands for one that has gone."""
    changes: dict[ObjectKey, Object | None] = {key: obj for key, obj in new.items() if old.get(key) is not obj}
    changes.update({key: None for key in old if key not in new})
    return changes
