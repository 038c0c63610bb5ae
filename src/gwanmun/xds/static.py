"""A translation as one file for Envoy: everything that would come over xDS, in its place in the bootstrap.

For `envoy --mode validate`, and for looking at. Deliberately absent: what a running proxy is started with (``infra``).
"""

from collections.abc import Mapping
from typing import Any

from gwanmun.protos import pb, to_dict
from gwanmun.xds.translate import Translation
from gwanmun.xds.types import CLUSTER, ENDPOINTS, LISTENER, MESSAGES, ROUTES, SCOPED_ROUTES, SECRET

Document = dict[str, Any]

_RUNTIME = {"re2.max_program_size.error_level": 65_536, "re2.max_program_size.warn_level": 65_536}
"""Path expressions that are accepted by a real proxy are to be accepted here."""


def documents(translation: Translation, type_url: str) -> dict[str, Document]:
    """The resources of one type as Envoy's YAML shows them, by name and sorted."""
    found = translation.resources.get(type_url, {})
    return {name: to_dict(pb(MESSAGES[type_url]).FromString(found[name])) for name in sorted(found)}


def static_bootstrap(translation: Translation) -> Document:
    """A bootstrap document with all of it; `admin` and `node` are the reader's business."""
    return {
        "layered_runtime": {"layers": [{"name": "gwanmun", "static_layer": dict(_RUNTIME)}]},
        "static_resources": {
            "listeners": [_listener(one, translation) for one in documents(translation, LISTENER).values()],
            "clusters": _clusters(translation),
            "secrets": list(documents(translation, SECRET).values()),
        },
    }


def _clusters(translation: Translation) -> list[Document]:
    assignments = documents(translation, ENDPOINTS)
    clusters = []
    for name, document in documents(translation, CLUSTER).items():
        if document.pop("eds_cluster_config", None) is not None:
            document = {**document, "type": "STATIC", "load_assignment": assignments[name]}
        clusters.append(_without_sds(document))
    return clusters


def _listener(document: Document, translation: Translation) -> Document:
    routes = documents(translation, ROUTES)
    scopes = documents(translation, SCOPED_ROUTES)
    for chain in document.get("filter_chains", []):
        for one in chain["filters"]:
            config = one["typed_config"]
            if "rds" in config:
                config["route_config"] = routes[config.pop("rds")["route_config_name"]]
            if "scoped_routes" in config:
                config["scoped_routes"] = _scoped(config["scoped_routes"], scopes, routes)
    found: Document = _without_sds(document)
    return found


def _scoped(scoped: Document, scopes: Mapping[str, Document], routes: Mapping[str, Document]) -> Document:
    """The scopes of this listener only."""
    mine = [scope for scope in scopes.values() if scope["key"]["fragments"][0]["string_key"] == scoped["name"]]
    inline = [
        {"name": scope["name"], "key": scope["key"], "route_configuration": routes[scope["route_configuration_name"]]}
        for scope in mine
    ]
    kept = {key: value for key, value in scoped.items() if key not in ("scoped_rds", "rds_config_source")}
    return {**kept, "scoped_route_configurations_list": {"scoped_route_configurations": inline}}


def _without_sds(value: Any) -> Any:
    """A secret that is named without a source is one of the bootstrap's."""
    if isinstance(value, dict):
        return {key: _without_sds(inner) for key, inner in value.items() if key != "sds_config"}
    if isinstance(value, list):
        return [_without_sds(inner) for inner in value]
    return value
