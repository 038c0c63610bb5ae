"""Whether a regular expression is one that the proxy accepts (RE2's syntax).

CEL's `matches` is RE2 itself, so the answer is the proxy's own; Python's `re` takes and refuses other expressions.
"""

from functools import lru_cache
from typing import Any

LONGEST_MESSAGE = 200  # characters


@lru_cache(maxsize=4096)
def regex_problem(pattern: str) -> str | None:
    """What is wrong with the expression in RE2's words, or None."""
    if not pattern.isprintable() and any("\ud800" <= character <= "\udfff" for character in pattern):
        return "not Unicode text"  # half of a surrogate pair has no UTF-8 form
    result = _matches().eval(data={"pattern": pattern})
    if result.type().name() != "ERROR":
        return None
    return str(result.value()).removeprefix("INVALID_ARGUMENT: ").removeprefix("invalid regular expression: ")[:LONGEST_MESSAGE]


@lru_cache(maxsize=1)
def _matches() -> Any:
    from cel_expr_python import cel  # a large library, and most routes have no regular expression

    return cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile("''.matches(pattern)")
