"""Explanations, from the running gateway of a folder where there is one, else from its manifests alone."""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gwanmun.app.accesslog import find_request
from gwanmun.app.errors import UserError
from gwanmun.app.offline import resolve_folders
from gwanmun.app.target import is_cluster
from gwanmun.explain import Explanation, Request, explain
from gwanmun.infra.envoy import MODULE
from gwanmun.infra.rundir import run_directory
from gwanmun.providers import parse_binding


def explanation_document(explanation: Explanation) -> dict[str, Any]:
    """An explanation as plain data."""
    document = asdict(explanation)
    document["gateway"] = str(explanation.gateway) if explanation.gateway else None
    document["listener"] = str(explanation.listener) if explanation.listener else None
    return document


def explain_request(
    folder: Path, method: str, url: str, headers: dict[str, str], body: bytes, bind: Sequence[str]
) -> dict[str, Any]:
    """What happens to a request, as plain data. UserError for a URL that is none."""
    from gwanmun.app.control import ControlClient, NotRunningError

    client = ControlClient.of((folder.resolve(),))
    if not bind and not is_cluster([folder]):
        asked = {"method": method, "url": url, "headers": headers, "body": body.decode(errors="replace")}
        with contextlib.suppress(NotRunningError):
            return asyncio.run(client.ask("POST", "/explain", content=asked))
    try:
        request = Request.of(method, url, headers, body)
        bindings = [parse_binding(text) for text in bind]
    except ValueError as error:
        raise UserError(str(error)) from None
    model = resolve_folders([folder], bindings).resolution.model
    return explanation_document(explain(model, request, reads_bodies=is_cluster([folder]) or MODULE.exists()))


def served_request(folder: Path, request_id: str) -> dict[str, Any] | None:
    """What the access log of the folder's gateway says of one request; None where it knows none of that id."""
    return find_request(run_directory(folder.resolve(), os.environ).path / "access.log", request_id)
