"""GatewayClasses that are ours, and the parameters (GatewayClassConfig) that they and their Gateways are run with.

A class whose parameters cannot be used is told so and its Gateways are served with the defaults: a mistake in what tunes
must not take down what serves. What the parameters say about pods is for whoever provisions proxies.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from gwanmun import ir
from gwanmun.api import Gateway, GatewayClass, GatewayClassConfig
from gwanmun.api.duration import EXAMPLES as DURATIONS
from gwanmun.api.duration import parse_duration
from gwanmun.api.gwanmun_v1alpha1 import GWANMUN_GROUP, ConnectionSettings, InferenceSettings
from gwanmun.api.kinds import canonical_group
from gwanmun.api.quantity import EXAMPLES as QUANTITIES
from gwanmun.api.quantity import parse_quantity
from gwanmun.memo import Query
from gwanmun.names import NamespacedName, ObjectKey
from gwanmun.resolve.features import SUPPORTED_FEATURES
from gwanmun.resolve.status import Condition, GatewayClassStatus, ObjectConditions
from gwanmun.resolve.world import read, settings
from gwanmun.resources.snapshot import GATEWAY_GROUP

LARGEST_REQUEST: Final = 2**31 - 1  # bytes; the proxy counts in 32 bits


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a GatewayClassConfig asks for. `problems` say which of its values were replaced by defaults."""

    connections: ir.ConnectionSettings = field(default_factory=ir.ConnectionSettings)
    inference: ir.InferenceSettings = field(default_factory=ir.InferenceSettings)
    problems: tuple[str, ...] = ()


def class_key(name: str) -> ObjectKey:
    return ObjectKey(GATEWAY_GROUP, "GatewayClass", "", name)


def class_controller(q: Query, name: str) -> str | None:
    """The controllerName of a class that is ours; None where it is another's or does not exist."""
    gateway_class = read(q, class_key(name), GatewayClass)
    if gateway_class is None or gateway_class.spec.controller_name not in settings(q).controller_names:
        return None
    return gateway_class.spec.controller_name


def config_parameters(q: Query, name: str) -> Parameters | None:
    """What the GatewayClassConfig of that name asks for, None where there is none."""
    config = read(q, ObjectKey(GWANMUN_GROUP, "GatewayClassConfig", "", name), GatewayClassConfig)
    if config is None:
        return None
    connections, found = _connections(config.spec.connection_settings)
    inference, more = _inference(config.spec.inference)
    return Parameters(connections, inference, found + more)


def referenced_parameters(q: Query, group: str, kind: str, name: str) -> Parameters | str:
    """What a parametersRef leads to, or why it leads nowhere."""
    if (canonical_group(group), kind) != (GWANMUN_GROUP, "GatewayClassConfig"):
        return f'{kind} of group "{group}" is not supported; GatewayClassConfig of group "{GWANMUN_GROUP}" is'
    found = q.get(config_parameters, name)
    # What an API server would refuse is in no snapshot; whoever reads the manifests says why.
    return (
        f"GatewayClassConfig {name} does not exist, or is invalid (its own problem then says why)" if found is None else found
    )


def class_parameters(q: Query, name: str) -> Parameters:
    """The parameters of a class, the defaults where it names none that can be used."""
    found = _class_parameters(q, name)
    return Parameters() if found is None or isinstance(found, str) else found


def parameters_of(q: Query, gateway: NamespacedName) -> Parameters:
    """The parameters of a Gateway: its own GatewayClassConfig in full where it names a usable one, else its class's."""
    spec = read(q, ObjectKey(GATEWAY_GROUP, "Gateway", *gateway), Gateway)
    if spec is None:
        return Parameters()
    infrastructure = spec.spec.infrastructure
    ref = infrastructure.parameters_ref if infrastructure else None
    if ref is not None:
        own = referenced_parameters(q, ref.group, ref.kind, ref.name)
        if isinstance(own, Parameters):
            return own
    return q.get(class_parameters, spec.spec.gateway_class_name)


def inference_of(q: Query, gateway: NamespacedName) -> ir.InferenceSettings:
    """How a request's model is found on this Gateway."""
    return q.get(parameters_of, gateway).inference


def gatewayclass_status(q: Query, key: ObjectKey) -> GatewayClassStatus | None:
    """The status of a class that is ours."""
    gateway_class = read(q, key, GatewayClass)
    if gateway_class is None or q.get(class_controller, key.name) is None:
        return None
    found = _class_parameters(q, key.name)
    problems = (found,) if isinstance(found, str) else found.problems if found else ()
    accepted = (
        Condition("Accepted", False, "InvalidParameters", f"spec.parametersRef: {'; '.join(problems)}; defaults are in force")
        if problems
        else Condition("Accepted", True, "Accepted")
    )
    return GatewayClassStatus(
        gateway_class.metadata.generation,
        (accepted, Condition("SupportedVersion", True, "SupportedVersion")),
        SUPPORTED_FEATURES,
    )


def config_status(q: Query, key: ObjectKey) -> ObjectConditions | None:
    """The status of a GatewayClassConfig."""
    config, parameters = read(q, key, GatewayClassConfig), q.get(config_parameters, key.name)
    if config is None or parameters is None:
        return None
    accepted = (
        Condition("Accepted", False, "InvalidParameters", "; ".join(parameters.problems) + "; defaults are in force")
        if parameters.problems
        else Condition("Accepted", True, "Accepted")
    )
    return ObjectConditions(config.metadata.generation, (accepted,))


def _class_parameters(q: Query, name: str) -> Parameters | str | None:
    gateway_class = read(q, class_key(name), GatewayClass)
    ref = gateway_class.spec.parameters_ref if gateway_class else None
    if ref is None:
        return None
    if ref.namespace:
        return f'GatewayClassConfig is cluster-scoped; namespace "{ref.namespace}" must not be given'
    return referenced_parameters(q, ref.group, ref.kind, ref.name)


def _connections(spec: ConnectionSettings) -> tuple[ir.ConnectionSettings, tuple[str, ...]]:
    result, problems = ir.ConnectionSettings(), []
    if spec.max_connections is not None:
        if spec.max_connections > 0:
            result = replace(result, max_connections=spec.max_connections)
        else:
            problems.append(f"spec.connectionSettings.maxConnections: {spec.max_connections} is not more than 0")
    if spec.connect_timeout is not None:
        timeout = parse_duration(spec.connect_timeout)
        if timeout:
            result = replace(result, connect_timeout=timeout)
        else:
            problems.append(_not_a('a duration of more than 0 such as "10s"', "connectTimeout", spec.connect_timeout))
    if spec.idle_timeout is not None:
        idle = parse_duration(spec.idle_timeout)
        if idle is None:
            problems.append(_not_a(DURATIONS, "idleTimeout", spec.idle_timeout))
        else:
            result = replace(result, idle_timeout=idle)
    return result, tuple(problems)


def _not_a(what: str, name: str, value: str) -> str:
    return f'spec.connectionSettings.{name}: "{value}" is not {what}'


def _inference(spec: InferenceSettings) -> tuple[ir.InferenceSettings, tuple[str, ...]]:
    result = replace(ir.InferenceSettings(), model_header=spec.model_header.lower())
    size = parse_quantity(spec.max_request_bytes)
    if size is None or not 1 <= size <= LARGEST_REQUEST:
        return result, (f'spec.inference.maxRequestBytes: "{spec.max_request_bytes}" is not {QUANTITIES} up to 2Gi',)
    return replace(result, max_request_bytes=int(size)), ()
