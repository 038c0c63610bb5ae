"""`--bind`: what is accepted, and the EndpointSlices that come of it."""

import pytest

from gwanmun.api import EndpointSlice
from gwanmun.api.load import load_text
from gwanmun.names import NamespacedName
from gwanmun.providers import ServiceBinding, bound_slices, parse_binding
from gwanmun.resources import key_of

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: vllm, namespace: ai}
spec: {ports: [{name: http, port: 8000}, {name: metrics, port: 9000}]}
"""


def bound(*texts: str, manifests: str = SERVICE) -> tuple[set[tuple[str | None, int, str, tuple[str, ...]]], list[str]]:
    """(port's name, target, address type, addresses) of each slice, and the problems."""
    objects = {key_of(item.object): item.object for item in load_text(manifests, "a.yaml").objects}
    slices, problems = bound_slices([parse_binding(text) for text in texts], objects)
    found = set()
    for made in slices.values():
        assert isinstance(made, EndpointSlice)
        addresses = tuple(address for endpoint in made.endpoints for address in endpoint.addresses)
        found.add((made.ports[0].name, made.ports[0].port or 0, made.address_type, addresses))
    return found, [f"{problem.source}: {problem.message}" for problem in problems]


@pytest.mark.parametrize(
    ("text", "binding"),
    [
        ("ai/vllm=127.0.0.1:8001", ServiceBinding(NamespacedName("ai", "vllm"), "127.0.0.1", 8001)),
        ("ai/vllm:8000=127.0.0.1:8001", ServiceBinding(NamespacedName("ai", "vllm"), "127.0.0.1", 8001, "8000")),
        ("ai/vllm:http=127.0.0.1:8001", ServiceBinding(NamespacedName("ai", "vllm"), "127.0.0.1", 8001, "http")),
        ("ai/vllm=[::1]:8001", ServiceBinding(NamespacedName("ai", "vllm"), "::1", 8001)),
    ],
)
def test_forms_of_a_binding(text: str, binding: ServiceBinding) -> None:
    assert parse_binding(text) == binding


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vllm=127.0.0.1:8001", "NAMESPACE/SERVICE"),
        ("ai/vllm", "NAMESPACE/SERVICE"),
        ("ai/vllm=8001", "NAMESPACE/SERVICE"),
        ("ai/vllm=127.0.0.1", "NAMESPACE/SERVICE"),
        ("ai/vllm=::1:8001", "NAMESPACE/SERVICE"),
        ("ai/vllm=localhost:8001", "localhost is not an IP address"),
        ("ai/vllm=127.0.0.256:8001", "127.0.0.256 is not an IP address"),
        ("ai/vllm=127.0.0.1:0", "0 is not a port (1 to 65535)"),
        ("ai/vllm=127.0.0.1:65536", "65536 is not a port (1 to 65535)"),
        ("", "NAMESPACE/SERVICE"),
    ],
)
def test_what_is_no_binding_is_told_what_one_is(text: str, says: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_binding(text)
    assert says in str(refused.value)
    assert f'"{text}"' in str(refused.value)


def test_every_port_or_one() -> None:
    assert bound("ai/vllm=127.0.0.1:1") == (
        {("http", 1, "IPv4", ("127.0.0.1",)), ("metrics", 1, "IPv4", ("127.0.0.1",))},
        [],
    )
    assert bound("ai/vllm:8000=127.0.0.1:1", "ai/vllm:metrics=127.0.0.1:2") == (
        {("http", 1, "IPv4", ("127.0.0.1",)), ("metrics", 2, "IPv4", ("127.0.0.1",))},
        [],
    )


def test_several_endpoints_of_both_families() -> None:
    slices, problems = bound("ai/vllm:http=127.0.0.1:1", "ai/vllm:http=127.0.0.2:1", "ai/vllm:http=[::1]:1")
    assert slices == {("http", 1, "IPv4", ("127.0.0.1", "127.0.0.2")), ("http", 1, "IPv6", ("::1",))}
    assert problems == []


def test_several_endpoints_on_one_address() -> None:
    slices, _ = bound("ai/vllm:http=127.0.0.1:1", "ai/vllm:http=127.0.0.1:2", "ai/vllm:http=127.0.0.1:2")
    assert slices == {("http", 1, "IPv4", ("127.0.0.1",)), ("http", 2, "IPv4", ("127.0.0.1",))}


def test_a_service_or_port_that_is_not_there_is_named() -> None:
    assert bound("ai/other=127.0.0.1:1") == (set(), ["--bind ai/other: there is no Service ai/other"])
    _, problems = bound("ai/vllm:grpc=127.0.0.1:1")
    assert problems == ["--bind ai/vllm:grpc: Service ai/vllm has the ports 8000, 9000, http, metrics"]
