"""Namespaces as selectors see them: by their labels."""

from gwanmun.api import LabelSelector as ApiSelector
from gwanmun.api import Namespace
from gwanmun.memo import Query
from gwanmun.names import ObjectKey
from gwanmun.resolve.types import LabelSelector, NamespaceRule
from gwanmun.resolve.world import read

NAME_LABEL = "kubernetes.io/metadata.name"
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def namespace_labels(q: Query, namespace: str) -> dict[str, str]:
    """The labels of a namespace, whether or not the object is there."""
    obj = read(q, ObjectKey("", "Namespace", "", namespace), Namespace)
    # The API server sets this label on every Namespace; a folder of manifests has no one to do so.
    return {NAME_LABEL: namespace, **(obj.metadata.labels if obj is not None else {})}


def namespace_allowed(q: Query, rule: NamespaceRule, *, own: str, namespace: str) -> bool:
    """Whether the rule of an object in the namespace `own` lets objects of `namespace` in."""
    match rule.kind:
        case "All":
            return True
        case "Same":
            return namespace == own
        case "Selector":
            return rule.selector is not None and rule.selector.matches(q.get(namespace_labels, namespace))
        case "None":
            return False


def namespace_rule(from_: str, selector: ApiSelector | None, path: str) -> tuple[NamespaceRule, str | None]:
    """The rule in canonical form, and what is wrong with it; a rule that cannot be understood lets nobody in."""
    if from_ == "Selector":
        if selector is None:
            return NamespaceRule("None"), f"{path}.selector is needed with from: Selector"
        return _selector_rule(selector, path)
    match from_:
        case "All" | "Same" | "None":
            return NamespaceRule(from_), None
        case _:
            return NamespaceRule("None"), f'{path}.from: "{from_}" is not one of All, Same and Selector'


def _selector_rule(selector: ApiSelector, path: str) -> tuple[NamespaceRule, str | None]:
    expressions = []
    for requirement in selector.match_expressions:
        match requirement.operator:
            case "In" | "NotIn" | "Exists" | "DoesNotExist" as operator:
                expressions.append((requirement.key, operator, tuple(sorted(requirement.values))))
            case unknown:
                return NamespaceRule("None"), f'{path}.selector: operator "{unknown}" is not one of {", ".join(OPERATORS)}'
    labels = tuple(sorted(selector.match_labels.items()))
    return NamespaceRule("Selector", LabelSelector(labels, tuple(sorted(expressions)))), None
