"""Kubernetes' validation rules in CEL (x-kubernetes-validations), evaluated by Google's C++ implementation.

The environment is the part of Kubernetes' own that the files in `crds/` use: standard functions and macros, the strings
library, isIP. Cost limits are absent: sizes are bounded by the schema, and rules come from files of ours.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_ESCAPED = re.compile(r"\.__([a-z]+)__\b")
_HAS_ESCAPED = re.compile(r"has\(([\w.\[\]]+)\.__([a-z]+)__\)")
_ESCAPES = {"dash": "-", "dot": ".", "slash": "/", "underscores": "__"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of one schema node, as the CRD states it."""

    expression: str
    message: str
    field: tuple[str, ...] = ()

    @property
    def needs_old(self) -> bool:
        """A transition rule: it compares with the object before the update and says nothing about a new one."""
        return re.search(r"\boldSelf\b", self.expression) is not None


class RuleSet:
    """The rules of one schema node. Compiled on first use; all at once where they hold, one by one where not.

    `sound` is for who checks values with it: digests of those that keep these rules and all below.
    """

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self.sound: set[bytes] = set()
        self._now = tuple(rule for rule in rules if not rule.needs_old)
        self._transition = tuple(rule for rule in rules if rule.needs_old)
        self._all_hold: Any = None
        self._single: dict[Rule, Any] = {}

    def failing(self, value: Any) -> list[Rule]:
        """The rules that this value breaks. A rule that cannot be evaluated counts as broken, as on an API server."""
        if not self._now:
            return []
        if self._all_hold is None:
            self._all_hold = compile_expression(" && ".join(f"({rule.expression}\n)" for rule in self._now))
        data = {"self": value}
        if _holds(self._all_hold, data):
            return []
        return [rule for rule in self._now if not _holds(self._program(rule), data)]

    def failing_update(self, value: Any, old: Any) -> list[Rule]:
        """The transition rules that a change from `old` to `value` breaks."""
        data = {"self": value, "oldSelf": old}
        return [rule for rule in self._transition if not _holds(self._program(rule), data)]

    def _program(self, rule: Rule) -> Any:
        if rule not in self._single:
            self._single[rule] = compile_expression(rule.expression)
        return self._single[rule]


def _holds(program: Any, data: dict[str, Any]) -> bool:
    """Errors of a rule are values and so not True; a rule of more than 10,000 iterations raises, and fails likewise."""
    try:
        return program.eval(data=data).value() is True
    except RuntimeError:
        return False


def compile_expression(expression: str) -> Any:
    """A program for the rule. Raises RuntimeError for text that is not CEL, which only a wrong CRD can hold."""
    return _environment().compile(_unescape(expression))


def _unescape(expression: str) -> str:
    """Kubernetes writes a field that is a word of CEL as `self.__namespace__`; here it is `self["namespace"]`."""
    with_has = _HAS_ESCAPED.sub(lambda match: f'("{_name(match[2])}" in {match[1]})', expression)
    return _ESCAPED.sub(lambda match: f'["{_name(match[1])}"]', with_has)


def _name(escaped: str) -> str:
    return _ESCAPES.get(escaped, escaped)


@lru_cache(maxsize=1)
def _environment() -> Any:
    # Imported here because loading it takes longer than everything else in this package, and a control plane that
    # reads from an API server never validates.
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_strings

    overload = cel.Overload("is_ip_string", cel.Type.BOOL, [cel.Type.STRING], False, is_ip)
    kubernetes = cel.CelExtension("kubernetes", [cel.FunctionDecl("isIP", [overload])])
    dyn = cel.Type.DYN
    return cel.NewEnv(variables={"self": dyn, "oldSelf": dyn}, extensions=[ext_strings.ExtStrings(), kubernetes])


def is_ip(text: str) -> bool:
    """Kubernetes' isIP: an IPv4 or IPv6 address without a zone, IPv4-mapped addresses excluded."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return address.scope_id is None and address.ipv4_mapped is None
    return True
