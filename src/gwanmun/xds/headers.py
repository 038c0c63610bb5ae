"""Header edits.

Values are format strings to Envoy, so a percent sign is doubled. One name or value that Envoy does not take would make it
refuse the whole route table: such an edit is left out, with a problem.
"""

import re
from collections.abc import Iterator

from gwanmun.ir import HeaderEdits
from gwanmun.xds.types import Fields

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\0\r\n]")


def header_edits(direction: str, edits: HeaderEdits | None) -> Fields:
    """`<direction>_headers_to_remove` and `_to_add` of a route or a weighted cluster."""
    if edits is None:
        return {}
    adds = [_option(name, value, "OVERWRITE_IF_EXISTS_OR_ADD") for name, value in edits.set if not _refused(name, value)]
    adds += [_option(name, value, "APPEND_IF_EXISTS_OR_ADD") for name, value in edits.add if not _refused(name, value)]
    removes = [name for name in edits.remove if not _refused(name, "")]
    return {f"{direction}_headers_to_add": adds, f"{direction}_headers_to_remove": removes}


def composed(first: HeaderEdits | None, second: HeaderEdits) -> HeaderEdits:
    """The edits that do what `first` and then `second` would."""
    if first is None:
        return second
    decided = {name.lower() for name in (*second.remove, *(name for name, _ in second.set))}
    return HeaderEdits(
        set=(*(one for one in first.set if one[0].lower() not in decided), *second.set),
        add=(*(one for one in first.add if one[0].lower() not in decided), *second.add),
        remove=tuple(dict.fromkeys((*first.remove, *second.remove))),
    )


def host_set_by(edits: HeaderEdits | None) -> str | None:
    """The Host that the edits set. Envoy has another place for it."""
    hosts = [value for name, value in edits.set if name.lower() == "host"] if edits is not None else []
    return hosts[-1] if hosts else None


def edit_problems(edits: HeaderEdits | None) -> Iterator[str]:
    """Why edits are left out."""
    if edits is None:
        return
    for name, value in (*edits.set, *edits.add, *((name, "") for name in edits.remove)):
        reason = _refused(name, value)
        if reason and not (name.lower() == "host" and (name, value) in edits.set):
            yield f'header "{name}": {reason}; this edit is left out'


def _refused(name: str, value: str) -> str:
    if not _NAME.fullmatch(name):
        return "not a header name"
    if name.lower() == "host":
        return "Host can be set, by this filter or by URLRewrite, but not added to or removed"
    if _BAD_VALUE.search(value):
        return "a header's value cannot have a line break"
    return ""


def _option(name: str, value: str, action: str) -> Fields:
    header = {"key": name, "value": value.replace("%", "%%")}
    return {"header": header, "append_action": action, "keep_empty_value": True}
