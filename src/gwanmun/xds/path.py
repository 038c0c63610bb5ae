"""Path rewrites, as a fragment of a RouteAction or RedirectAction (both name the fields alike)."""

import re
from typing import assert_never

from gwanmun.ir import ExactPath, PathMatch, PathRewrite, PrefixPath, RegexPath, ReplaceFullPath, ReplacePrefix
from gwanmun.xds.types import Fields

_WHOLE = "^/.*$"


def path_rewrite(rewrite: PathRewrite | None, path: PathMatch) -> Fields:
    """`path` is what the rule matched. An empty result becomes `/`; the query stays."""
    match rewrite:
        case None:
            return {}
        case ReplaceFullPath(value):
            return _regex(_WHOLE, value or "/")
        case ReplacePrefix(value):
            return _replace_prefix(value.rstrip("/"), path)
        case _:
            assert_never(rewrite)


def _replace_prefix(value: str, path: PathMatch) -> Fields:
    """`value` has no slash at its end; without one here it means "take the prefix away"."""
    match path:
        case PrefixPath("/" | "") if value:
            return {"prefix_rewrite": f"{value}/"}  # the matched prefix is the slash itself
        case PrefixPath("/" | ""):
            return {}
        case PrefixPath() if value:
            return {"prefix_rewrite": value}
        case PrefixPath(prefix):
            # A plain replacement by nothing would leave `/prefix` with no path at all, and one by `/` would turn
            # `/prefix/x` into `//x`.
            return _regex(f"^{re.escape(prefix)}/?(.*)$", "/", r"\1")
        case ExactPath():
            return _regex(_WHOLE, value or "/")
        case RegexPath():
            return {}  # there is no prefix; the API forbids it
        case _:
            assert_never(path)


def _regex(pattern: str, literal: str, groups: str = "") -> Fields:
    substitution = literal.replace("\\", "\\\\") + groups
    return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": substitution}}
