"""BackendTLSPolicy: which one is in force for a port of a Service, what it asks for, and what its status says."""

from dataclasses import dataclass
from typing import Literal

from gwanmun import ir
from gwanmun.api import BackendTLSPolicy
from gwanmun.api.backendtlspolicy import BackendTLSPolicyValidation, SubjectAltName
from gwanmun.api.references import GATEWAY_GROUP, PolicyTargetReference
from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.attach import gateways_of
from gwanmun.resolve.fault import Refusal
from gwanmun.resolve.listener import controller_of
from gwanmun.resolve.status import Condition, ParentRef, ParentStatus, PolicyStatus
from gwanmun.resolve.tls import Unresolved, authorities
from gwanmun.resolve.world import find, read


@dataclass(frozen=True, slots=True)
class PolicyHead:
    """Whom a policy is about and how old it is."""

    targets: tuple[PolicyTargetReference, ...]
    created: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What a policy asks for. `tls` None: it cannot be done, and traffic to its targets has to fail.

    `problem` is why the policy is not accepted, `unresolved` what is wrong with its references.
    """

    tls: ir.BackendTls | None
    problem: Refusal | None = None
    unresolved: tuple[Refusal, ...] = ()


def policy_head(q: Query, policy: ObjectKey) -> PolicyHead | None:
    """The part of a policy that decides which one is in force."""
    obj = read(q, policy, BackendTLSPolicy)
    return PolicyHead(obj.spec.target_refs, obj.metadata.creation_timestamp or "") if obj is not None else None


def policy_of(q: Query, service: ObjectKey, port: str) -> ObjectKey | None:
    """The policy in force for a named port of a Service: one that names the port before one that does not."""
    if port and (named := q.get(winner, service, port)) is not None:
        return named
    return q.get(winner, service, None)


def winner(q: Query, service: ObjectKey, section: str | None) -> ObjectKey | None:
    """Of the policies on exactly this target the oldest, then the first by name."""
    contenders = []
    for policy in find(q, "target", service):
        head = q.get(policy_head, policy)
        if head is not None and any(_is_about(target, service, section) for target in head.targets):
            contenders.append((head.created == "", head.created, policy))
    return min(contenders)[2] if contenders else None


def _is_about(target: PolicyTargetReference, service: ObjectKey, section: str | None) -> bool:
    same = (target.group, target.kind, target.name) == (service.group, service.kind, service.name)
    return same and (target.section_name or None) == section


def policy_tls(q: Query, policy: ObjectKey) -> ir.BackendTls | None:
    """TLS as the policy asks for it; None where that cannot be done."""
    judged = q.get(judge_policy, policy)
    return judged.tls if judged is not None else None


def judge_policy(q: Query, policy: ObjectKey) -> Judged | None:
    """What a policy asks for and what is wrong with it; None where it does not exist."""
    obj = read(q, policy, BackendTLSPolicy)
    if obj is None:
        return None
    names = [_name(name, index) for index, name in enumerate(obj.spec.validation.subject_alt_names)]
    wrong = next((name for name in names if isinstance(name, Refusal)), None)
    trust, problem, unresolved = _trust(q, policy, obj.spec.validation)
    if trust is None or wrong is not None:
        return Judged(None, problem or wrong, unresolved)
    accepted = tuple(name for name in names if isinstance(name, ir.SubjectAltName))
    return Judged(ir.BackendTls(obj.spec.validation.hostname.lower(), trust, accepted), None, unresolved)


def _name(name: SubjectAltName, index: int) -> ir.SubjectAltName | Refusal:
    where = f"spec.validation.subjectAltNames[{index}]"
    match name.type:
        case "Hostname" if name.hostname:
            return ir.SubjectAltName("dns", name.hostname.lower())
        case "URI" if name.uri:
            return ir.SubjectAltName("uri", name.uri)
        case "Hostname" | "URI":
            return Refusal("Invalid", f"{where}: type {name.type} needs the field {name.type.lower()}")
        case kind:
            return Refusal("Invalid", f'{where}.type: "{kind}" is not one of Hostname and URI')


Trust = ir.TrustAnchors | ir.SystemTrust


def _trust(
    q: Query, policy: ObjectKey, validation: BackendTLSPolicyValidation
) -> tuple[Trust | None, Refusal | None, tuple[Refusal, ...]]:
    if not validation.ca_certificate_refs:
        if validation.well_known_ca_certificates == "System":
            return ir.SystemTrust(), None, ()
        given = validation.well_known_ca_certificates
        wrong = (
            f'wellKnownCACertificates: "{given}" is not "System"'
            if given
            else "caCertificateRefs or wellKnownCACertificates is needed"
        )
        return None, Refusal("Invalid", f"spec.validation: {wrong}"), ()
    pems: list[str] = []
    unresolved: list[Refusal] = []
    for index, ref in enumerate(validation.ca_certificate_refs):
        where = f"spec.validation.caCertificateRefs[{index}]"
        if (ref.group, ref.kind) not in (("", "ConfigMap"), ("", "Secret")):
            unresolved.append(
                Refusal("InvalidKind", f'{where}: kind "{ref.kind}" of group "{ref.group}" is not ConfigMap or Secret')
            )
            continue
        pem = q.get(authorities, ObjectKey(ref.group, ref.kind, policy.namespace, ref.name))
        if isinstance(pem, Unresolved):
            unresolved.append(Refusal("InvalidCACertificateRef", f"{where}: {pem.message}"))
        else:
            pems.append(pem)
    if pems:
        return ir.TrustAnchors("\n".join(dict.fromkeys(pems))), None, tuple(unresolved)
    none = Refusal("NoValidCACertificate", "; ".join(problem.message for problem in unresolved))
    return None, none, tuple(unresolved)


def policy_status(q: Query, policy: ObjectKey) -> PolicyStatus | None:
    """One entry for each of our Gateways with a route to a target; None where the policy does not exist."""
    obj = read(q, policy, BackendTLSPolicy)
    judged = q.get(judge_policy, policy)
    if obj is None or judged is None:
        return None
    conditions = (_accepted(q, policy, obj, judged), _resolved_refs(judged))
    gateways = sorted({gateway for target in obj.spec.target_refs for gateway in q.get(users_of, _key(policy, target))})
    return PolicyStatus(
        obj.metadata.generation,
        tuple(
            ParentStatus(
                ParentRef(GATEWAY_GROUP, "Gateway", gateway.name, gateway.namespace), q.get(controller_of, gateway), conditions
            )
            for gateway in gateways
        ),
    )


def users_of(q: Query, target: ObjectKey) -> tuple[NamespacedName, ...]:
    """The Gateways that have a route to a backend, or to a pool that it picks for, sorted."""
    found = {gateway for route in find(q, "backendref", target) for gateway in q.get(gateways_of, route)}
    found.update(gateway for pool in find(q, "picker", target) for gateway in q.get(users_of, pool))
    return tuple(sorted(found))


def _key(policy: ObjectKey, target: PolicyTargetReference) -> ObjectKey:
    return ObjectKey(target.group, target.kind, policy.namespace, target.name)


def _accepted(q: Query, policy: ObjectKey, obj: BackendTLSPolicy, judged: Judged) -> Condition:
    foreign = [target for target in obj.spec.target_refs if (target.group, target.kind) != ("", "Service")]
    if len(foreign) == len(obj.spec.target_refs):
        return _no("Invalid", 'spec.targetRefs: only kind Service of group "" is supported')
    winners = {
        target: q.get(winner, _key(policy, target), target.section_name or None)
        for target in obj.spec.target_refs
        if target not in foreign
    }
    lost = [
        f"{_key(policy, target)} has {of} already, which is older or comes first by name"
        for target, of in winners.items()
        if of != policy
    ]
    if len(lost) == len(winners):
        return _no("Conflicted", "; ".join(lost))
    if judged.problem is not None:
        return _no(judged.problem.reason, judged.problem.message)
    ignored = [f"spec.options: {', '.join(sorted(obj.spec.options))} not known, ignored"] if obj.spec.options else []
    return Condition("Accepted", True, "Accepted", "; ".join((*lost, *ignored)))


def _no(reason: str, message: str, kind: Literal["Accepted", "ResolvedRefs"] = "Accepted") -> Condition:
    return Condition(kind, False, reason, message)


def _resolved_refs(judged: Judged) -> Condition:
    if not judged.unresolved:
        return Condition("ResolvedRefs", True, "ResolvedRefs")
    return _no(judged.unresolved[0].reason, "; ".join(problem.message for problem in judged.unresolved), "ResolvedRefs")
