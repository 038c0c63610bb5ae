"""The parts of docs/reference/ that the product itself can tell, by the name in their marks.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. `pytest tests/docs --rewrite-goldens` writes them anew.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from importlib import metadata
from typing import Any

import click
import typer
import yaml
from packaging.requirements import Requirement
from pages import ROOT

from gwanmun.api.kinds import ALIAS_GROUPS, KINDS
from gwanmun.cli.main import app
from gwanmun.resolve.features import SUPPORTED_FEATURES
from gwanmun.xds.localreply import _REPLIES

_PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n)(?P<text>.*?)(<!-- end -->)", re.DOTALL)
_HELP_WIDTH = 100


def parts_of(text: str) -> list[str]:
    return [found["name"] for found in _PART.finditer(text)]


def renewed(text: str) -> str:
    """A page with its generated parts as they should be."""
    return _PART.sub(lambda found: found[1] + PARTS[found["name"]]() + found[4], text)


# The command line


def commands() -> Mapping[str, click.Command]:
    group = typer.main.get_command(app)
    return group.commands  # type: ignore[attr-defined,no-any-return]  # a group


def _command_line() -> str:
    return "".join(_command(name, command) for name, command in commands().items() if not command.hidden)


def _command(name: str, command: click.Command) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    context.terminal_width = context.max_content_width = _HELP_WIDTH
    context.info_name = f"gwanmun {name}"
    return f"\n## gwanmun {name}\n\n```text\n{command.get_help(context).strip()}\n```\n\n"


# Kinds


def _versions() -> str:
    rows = [(kind.group or "(core)", kind.kind, ", ".join(kind.versions)) for kind in KINDS.values()]
    aliases = "".join(f"\nGroup `{alias}` is another name of `{group}`.\n" for alias, group in ALIAS_GROUPS.items())
    return _table(("Group", "Kind", "Versions"), rows) + aliases


def _features() -> str:
    return "".join(f"- {feature}\n" for feature in SUPPORTED_FEATURES)


def _fields(plural: str) -> Callable[[], str]:
    def table() -> str:
        path = ROOT / "src/gwanmun/api/crds" / f"gwanmun.dev_{plural}.yaml"
        schema = yaml.safe_load(path.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        return _table(("Field", "Type", "Default", "Meaning"), _rows(schema["properties"]["spec"], "spec"))

    return table


def _rows(schema: dict[str, Any], path: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in schema.get("properties", {}).items():
        item = field.get("items")
        here = f"{path}.{name}" + ("[]" if item else "")
        needed = "required" if name in schema.get("required", ()) else ""
        default = f"`{field['default']}`" if field.get("default") not in (None, "") else needed
        yield f"`{here}`", _type(field), default, " ".join(field.get("description", "").split())
        yield from _rows(item or field, here)


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "additionalProperties" in field:
        return "map"
    return {"array": "list"}.get(field["type"], field["type"])


# Errors


def _errors() -> str:
    rows = [
        (f"`{reply.code}`", reply.type, reply.message, (reply.plain or "(nothing)").strip(), str(reply.retry_after or ""))
        for reply in _REPLIES
    ]
    return _table(("Code", "Type", "Message", "Outside model APIs", "Retry-After"), rows)


# Licences


def _python_licences() -> str:
    """What `requirements/runtime.txt` locks, as far as it is for this platform."""
    rows = []
    for line in re.findall(r"^([a-z0-9].*?) \\$", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE):
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate():
            found = metadata.distribution(wanted.name)
            rows.append((found.metadata["Name"], found.version, _licence(found.metadata)))
    return _table(("Package", "Version", "Licence"), rows)


def _licence(of: Message) -> str:
    """As the package says it: an SPDX expression, else a classifier, else the short form of the text."""
    if expression := of.get("License-Expression"):
        return str(expression)
    classified = [
        line.rpartition(" :: ")[2] for line in of.get_all("Classifier") or () if line.startswith("License :: OSI Approved ::")
    ]
    return ", ".join(classified) or str(of.get("License") or "").partition("\n")[0]


_CRATE_LICENCES = {
    "memchr": "Unlicense OR MIT",
    "itoa": "MIT OR Apache-2.0",
    "serde": "MIT OR Apache-2.0",
    "serde_core": "MIT OR Apache-2.0",
    "serde_json": "MIT OR Apache-2.0",
    "ryu": "Apache-2.0 OR BSL-1.0",
    "zmij": "MIT",
    "serde_derive": "MIT OR Apache-2.0",
    "proc-macro2": "MIT OR Apache-2.0",
    "quote": "MIT OR Apache-2.0",
    "syn": "MIT OR Apache-2.0",
    "unicode-ident": "(MIT OR Apache-2.0) AND Unicode-3.0",
}
"""From the crates' Cargo.toml; Cargo.lock does not say it."""


def _rust_licences() -> str:
    locked = re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', (ROOT / "native/Cargo.lock").read_text())
    return _table(
        ("Crate", "Version", "Licence"),
        [(name, version, _CRATE_LICENCES[name]) for name, version in locked if name != "gwanmun-module"],
    )


def _table(columns: tuple[str, ...], rows: Any) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


PARTS: Mapping[str, Callable[[], str]] = {
    "commands": _command_line,
    "versions": _versions,
    "features": _features,
    "backend": _fields("backends"),
    "gatewayclassconfig": _fields("gatewayclassconfigs"),
    "errors": _errors,
    "python-licences": _python_licences,
    "rust-licences": _rust_licences,
}
