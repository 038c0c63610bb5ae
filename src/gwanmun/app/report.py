"""What is told about a running gateway: lines for people, plain data for programs. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, assert_never

from gwanmun.api.load import Problem
from gwanmun.app.pipeline import Picture
from gwanmun.app.unheard import unheard
from gwanmun.infra.local import Adopted, EnvoyStatus, Event, Failed, HotRestarted, Notice, Ready, Started
from gwanmun.ir import Endpoints
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.protos import pb, to_dict
from gwanmun.providers import SUFFIXES, SourceProblem
from gwanmun.resolve.status import Status
from gwanmun.status import StatusRow, row_document, rows
from gwanmun.xds.names import cluster as cluster_name
from gwanmun.xds.translate import Translation
from gwanmun.xds.types import MESSAGES, SECRET
from gwanmun.xds_server.subscription import Rejection

KINDS = {
    "listener": "envoy.config.listener.v3.Listener",
    "route": "envoy.config.route.v3.RouteConfiguration",
    "scope": "envoy.config.route.v3.ScopedRouteConfiguration",
    "cluster": "envoy.config.cluster.v3.Cluster",
    "endpoint": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "secret": "envoy.extensions.transport_sockets.tls.v3.Secret",
}
"""What the kinds of resources are called on the command line."""


def problem_line(problem: Problem | SourceProblem) -> str:
    """`file:line: error: Kind name: field: what is wrong`."""
    if isinstance(problem, SourceProblem):
        return f"{problem.source}: error: {problem.message}"
    subject = " ".join(part for part in (problem.kind, problem.name) if part)
    where = f"{problem.source}:{problem.line}" if problem.line else problem.source
    text = ": ".join(part for part in (subject, problem.path, problem.message) if part)
    return f"{where}: {problem.severity}: {text}"


def is_warning(problem: Problem | SourceProblem) -> bool:
    """Whether everything is in force all the same."""
    return isinstance(problem, Problem) and problem.severity == "warning"


def no_manifests(paths: Iterable[Path]) -> str:
    return f"{', '.join(map(str, paths))}: there is no manifest in it ({', '.join(f'*{suffix}' for suffix in SUFFIXES)})"


class PictureProblems:
    """Everything that is wrong with what is declared, and with where it should be bound.

    `controllers` are the controllerNames that are served. Remembers what it said of each status: of thousands of objects a
    change touches a few.
    """

    def __init__(self, controllers: Sequence[str]) -> None:
        self._controllers = controllers
        self._said: dict[ObjectKey, tuple[Status, tuple[str, ...]]] = {}

    def lines(self, picture: Picture) -> set[str]:
        before, self._said = self._said, {}
        for key, status in picture.resolution.statuses.items():
            known = before.get(key)
            self._said[key] = known if known is not None and known[0] is status else (status, status_lines(key, status))
        lines = {line for _, said in self._said.values() for line in said}
        silent = unheard(picture.snapshot, picture.resolution.statuses, self._controllers)
        lines |= {f"{key}: {message}" for key, message in silent}
        lines |= {f"{problem.key}: {problem.message}" for problem in picture.ports.problems}
        return lines | {f"{key}: {message}" for key, message in picture.translation.problems}


def status_lines(key: ObjectKey, status: Status) -> tuple[str, ...]:
    """What a status says is wrong, a line for each."""
    return tuple(line for row in rows({key: status}) for line in row_lines(row))


def row_lines(row: StatusRow) -> Iterator[str]:
    """What is wrong with one row of a status."""
    part = f" ({row.part})" if row.part else ""
    for detail in row.details:
        yield f"{row.kind} {NamespacedName(row.namespace, row.name)}{part}: {detail}"


def address_lines(picture: Picture) -> Iterator[str]:
    for key, bound in picture.ports.bindings.items():
        for binding in bound:
            note = f"  ({binding.note})" if binding.note else ""
            yield f"{key} listens on {_address(binding.address, binding.port)}{note}"


def rejection_line(rejection: Rejection) -> str:
    kind = rejection.type_url.rpartition(".")[2]
    return f"Envoy refused {kind} {rejection.name} and keeps what it had: {rejection.error}"


def event_line(event: Event) -> str:
    match event:
        case Started(pid):
            return f"Envoy started (process {pid})"
        case Adopted(pid):
            return f"Envoy of an earlier start goes on (process {pid})"
        case HotRestarted(pid, old):
            return f"Envoy hot restarted (process {pid}; {old} finishes its connections)"
        case Ready(pid, seconds):
            return f"Envoy serves (process {pid}, after {seconds:.2f} s)"
        case Failed(message, _, retry):
            return f"{message}; trying again in {retry:.1f} s"
        case Notice(message):
            return message
        case _:
            assert_never(event)


def status_report(
    picture: Picture | None,
    *,
    version: int,
    envoy: EnvoyStatus | None,
    envoy_version: str,
    problems: list[str],
    warnings: frozenset[str],
) -> dict[str, Any]:
    """Everything that `gwanmun status` shows. Those of the problems that are `warnings` do not make it unhealthy."""
    shown = rows(picture.resolution.statuses) if picture else []
    ready = envoy is not None and envoy.ready
    return {
        "version": version,
        "healthy": ready and warnings.issuperset(problems) and all(row.healthy for row in shown),
        "envoy": {
            "version": envoy_version,
            "pid": envoy.pid if envoy else None,
            "state": "serves" if ready else "does not serve yet",
            "restarts": envoy.restarts if envoy else 0,
            "draining": list(envoy.draining) if envoy else [],
        },
        "addresses": [
            {
                "gateway": str(key.gateway),
                "port": key.port,
                "transport": key.transport,
                "address": _address(binding.address, binding.port),
                "note": binding.note,
            }
            for key, bound in (picture.ports.bindings.items() if picture else ())
            for binding in bound
        ],
        "objects": [row_document(row) for row in shown],
        "backends": [
            {
                "backend": name,
                "ready": sum(endpoint.ready for endpoint in found.endpoints),
                "endpoints": len(found.endpoints),
            }
            for name, found in sorted(_backends(picture) if picture else ())
        ],
        "problems": problems,
    }


def _backends(picture: Picture) -> Iterator[tuple[str, Endpoints]]:
    return ((cluster_name(key), found) for key, found in picture.resolution.model.endpoints.items())


def envoy_configuration(translation: Translation | None, *, kind: str, name: str) -> dict[str, Any]:
    """Envoy's resources as its own YAML shows them, by kind. Private keys are left out. ValueError for an unknown kind."""
    if kind and kind not in KINDS:
        raise ValueError(f'"{kind}" is not one of {", ".join(KINDS)}')
    shown: dict[str, Any] = {}
    resources = translation.resources if translation else {}
    for word, message in KINDS.items():
        if kind and word != kind:
            continue
        type_url = next(url for url, full_name in MESSAGES.items() if full_name == message)
        documents = [
            _without_key(to_dict(pb(message).FromString(body)), secret=type_url == SECRET)
            for resource_name, body in sorted(resources.get(type_url, {}).items())
            if name in resource_name
        ]
        if documents:
            shown[f"{word}s"] = documents
    return shown


def _without_key(document: dict[str, Any], *, secret: bool) -> dict[str, Any]:
    if secret and "tls_certificate" in document:
        document["tls_certificate"]["private_key"] = "(not shown)"
    return document


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
