"""Manifests of any number of routes, as a platform team would write them."""

from collections.abc import Iterator

NAMESPACE = "bench"
SERVICES = 20
"""Backends are shared by routes: thousands of routes do not mean thousands of model servers."""

_GATEWAY = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: gwanmun
spec:
  controllerName: gwanmun.dev/gateway-controller
---
apiVersion: v1
kind: Namespace
metadata:
  name: {namespace}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: gateway
  namespace: {namespace}
spec:
  gatewayClassName: gwanmun
  listeners:
    - name: http
      protocol: HTTP
      port: {port}
      allowedRoutes:
        namespaces:
          from: Same
"""
_SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: {name}
  namespace: {namespace}
spec:
  ports:
    - port: 8000
"""
_SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}
  namespace: {namespace}
  labels:
    kubernetes.io/service-name: {name}
addressType: IPv4
endpoints:
  - addresses: ["127.0.0.1"]
ports:
  - port: {port}
"""
_MODEL_ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: by-model
  namespace: {namespace}
spec:
  parentRefs:
    - name: gateway
  rules:
    - matches:
        - headers:
            - name: x-model-id
              value: gpt-4
      backendRefs:
        - name: service-0
          port: 8000
"""
_ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: route-{index}
  namespace: {namespace}
spec:
  parentRefs:
    - name: gateway
  hostnames:
    - {host}
  rules:
    - matches:
        - path:
            type: PathPrefix
            value: /
      filters:
        - type: ResponseHeaderModifier
          responseHeaderModifier:
            set:
              - name: x-edition
                value: "{edition}"
      backendRefs:
        - name: {service}
          port: 8000
          weight: {weight}
        - name: {other}
          port: 8000
          weight: {rest}
"""


def gateway(port: int) -> str:
    return _GATEWAY.format(namespace=NAMESPACE, port=port)


def service(name: str) -> str:
    return _SERVICE.format(name=name, namespace=NAMESPACE)


def slice_of(name: str, port: int) -> str:
    """Where a Service's one endpoint is."""
    return _SLICE.format(name=name, namespace=NAMESPACE, port=port)


def model_route() -> str:
    """The model of the header or body to a Service."""
    return _MODEL_ROUTE.format(namespace=NAMESPACE)


def host(index: int) -> str:
    return f"tenant-{index}.example.com"


ALL = 1_000_000
"""The largest weight that there is: with all but one of it on one side, one answer tells which side that is."""


def route(index: int, *, edition: str = "0", weight: int = ALL - 1) -> str:
    """Of a host name of its own. `weight` of `ALL` go to the one Service, the rest to the next."""
    return _ROUTE.format(
        index=index,
        namespace=NAMESPACE,
        host=host(index),
        edition=edition,
        service=service_of(index),
        weight=weight,
        other=service_of(index + 1),
        rest=ALL - weight,
    )


def service_of(index: int) -> str:
    return f"service-{index % SERVICES}"


def world(port: int, backend: int, routes: int) -> Iterator[tuple[str, str]]:
    """Files by name: everything for that many routes, one file each, as they lie in a repository."""
    yield "00-gateway.yaml", gateway(port)
    for index in range(SERVICES):
        name = f"service-{index}"
        yield f"10-{name}.yaml", f"{service(name)}---\n{slice_of(name, backend)}"
    for index in range(routes):
        yield f"route-{index}.yaml", route(index)
