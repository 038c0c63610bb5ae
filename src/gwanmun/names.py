"""Typed identities. A key is a value; text is made from it at the edge (`xds/names.py`) and never split back.

Keys are named tuples: they hash and compare at C speed, and a graph of ten thousand objects is little else.
Nothing of ours is imported here.
"""

from typing import NamedTuple


class NamespacedName(NamedTuple):
    """The place of a namespaced object; `namespace` is empty for cluster-scoped ones."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class ObjectKey(NamedTuple):
    """One Kubernetes object of any kind. `group` is empty for the core group; the version is no part of identity."""

    group: str
    kind: str
    namespace: str
    name: str

    @property
    def namespaced_name(self) -> NamespacedName:
        return NamespacedName(self.namespace, self.name)

    def __str__(self) -> str:
        return f"{self.kind} {self.namespaced_name}"


class ListenerKey(NamedTuple):
    """A listener, by the Gateway or ListenerSet that declares it and its name there (a sectionName)."""

    owner: ObjectKey
    name: str

    def __str__(self) -> str:
        return f"{self.owner}#{self.name}"


class RuleKey(NamedTuple):
    """One rule of one route, by position (rules are ordered and need no name)."""

    route: ObjectKey
    rule: int

    def __str__(self) -> str:
        return f"{self.route} rule {self.rule}"


class MatchKey(NamedTuple):
    """One match of one rule; a rule without matches has the match 0 that takes everything."""

    rule: RuleKey
    match: int

    def __str__(self) -> str:
        return f"{self.rule} match {self.match}"


class ClusterKey(NamedTuple):
    """What traffic can be sent to as one unit: a port of a backend, spoken to in one way.

    `protocol` is part of it because one Service port may be reached over HTTP/1.1 by one route and over HTTP/2 by a
    GRPCRoute; `identity` names the Gateway whose client certificate is presented, and is None where none is.
    """

    backend: ObjectKey
    port: int
    protocol: str
    identity: NamespacedName | None = None

    def __str__(self) -> str:
        return f"{self.backend}:{self.port}"


class CertificateKey(NamedTuple):
    """A certificate with its private key, by the Secret that holds it."""

    secret: NamespacedName

    def __str__(self) -> str:
        return f"Secret {self.secret}"
