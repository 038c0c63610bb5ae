"""Explanations, from the running gateway of a folder where there is one, else from its manifests alone."""

import asyncio
import contextlib
import os
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gwanmun.app.accesslog import find_request
from gwanmun.app.errors import UserError
from gwanmun.app.offline import resolve_folders
from gwanmun.app.target import is_cluster
from gwanmun.app.words import settings_of
from gwanmun.explain import Explanation, Request, Served, explain
from gwanmun.infra.envoy import MODULE
from gwanmun.infra.rundir import run_directory
from gwanmun.providers import parse_binding
from gwanmun.xds.names import rule_in


def explanation_document(explanation: Explanation) -> dict[str, Any]:
    """An explanation as plain data."""
    document = asdict(explanation)
    document["gateway"] = str(explanation.gateway) if explanation.gateway else None
    document["listener"] = str(explanation.listener) if explanation.listener else None
    return document


def explain_request(
    paths: Sequence[Path],
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    bind: Sequence[str],
    *,
    served: Served | None = None,
    controllers: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """What happens to a request, as plain data; and what is wrong with the files, which a running gateway says itself.
    `served` as in ``explain``; `controllers` are ours in a cluster, or in files that nobody serves. UserError for a URL that
    is none."""
    from gwanmun.app.control import ControlClient, NotRunningError

    in_cluster = is_cluster(paths)
    if not bind and not controllers and not in_cluster:
        client = ControlClient.of(paths)
        known = served._asdict() if served is not None else None
        asked = {"method": method, "url": url, "headers": headers, "body": b64encode(body).decode(), "served": known}
        with contextlib.suppress(NotRunningError):
            return asyncio.run(client.ask("POST", "/explain", content=asked)), []
    try:
        request = Request.of(method, url, headers, body)
        bindings = [parse_binding(text) for text in bind]
    except ValueError as error:
        raise UserError(str(error)) from None
    resolved = resolve_folders(paths, bindings, settings_of(controllers))
    reads_bodies = in_cluster or MODULE.exists()
    explanation = explain(resolved.resolution.model, request, reads_bodies=reads_bodies, served=served)
    return explanation_document(explanation), resolved.problem_lines


def served_request(paths: Sequence[Path], request_id: str) -> dict[str, Any] | None:
    """What became of one request, as the access log of the folder's gateway tells it: the `outcome` in one sentence, its
    `log` entry, and the `explanation` of such a request today. None where the log knows none of that id."""
    if is_cluster(paths):
        raise UserError("requests that a cluster has served are in the logs of its proxies; look for the id there")
    entry = find_request(run_directory(paths[0], os.environ, make=False).path / "access.log", request_id)
    if entry is None:
        return None
    return {"outcome": _what_became_of(entry), "log": entry, "explanation": _explained_again(paths, entry)}


def _what_became_of(entry: dict[str, Any]) -> str:
    route, upstream, attempts = entry.get("route"), entry.get("upstream"), entry.get("attempts") or 0
    parts = [f"{entry.get('code') or 'no answer'} after {entry.get('duration_ms')} ms"]
    if route:
        parts.append(f"by {rule_in(route) or route}")
    if upstream:
        parts.append(f"from {upstream} of {entry.get('cluster')}" + (f" at attempt {attempts}" if attempts > 1 else ""))
    else:
        parts.append(f"answered by the gateway itself ({entry.get('details')})")
    return ", ".join(parts)


def _explained_again(paths: Sequence[Path], entry: dict[str, Any]) -> dict[str, Any] | None:
    """The explanation of a request with what the log keeps: method, host, path and model, no other header, no query. None
    where the same rule would not take it: manifests have changed, or other headers decided."""
    rule = rule_in(entry.get("route") or "")
    if rule is None:
        return None
    served = Served(rule, entry.get("model") or "")
    url = f"http://{entry['authority']}{entry['path']}"
    try:
        told, _ = explain_request(paths, entry["method"], url, (), b"", (), served=served)
    except UserError:
        return None
    taken = any(not verdict["why_not"] and verdict["rule"] == rule for verdict in told["verdicts"])
    return told if taken else None
