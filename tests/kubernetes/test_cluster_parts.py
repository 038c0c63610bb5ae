"""The pure parts of the test cluster and of the conformance runner; they need no cluster."""

import datetime
import socket
import struct
from typing import Any

import pytest
from conformance.results import Collector, table
from tests.kubernetes.cluster import dns, logs
from tests.kubernetes.cluster.environment import NotYet, World, container_environment
from tests.kubernetes.cluster.images import Image, NoSuchImage, command_line, find_image

POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "ai", "uid": "u", "labels": {"app/name": "x"}},
    "spec": {"nodeName": "zone-a-0"},
    "status": {"podIP": "10.101.1.1"},
}


def environment(container: dict[str, Any], **objects: Any) -> dict[str, str]:
    world = World(objects.get("secrets", {}), objects.get("config_maps", {}))
    return container_environment(POD, container, world)


def test_environment_refers_to_fields_objects_and_earlier_variables() -> None:
    container = {
        "name": "main",
        "resources": {"limits": {"memory": "1Gi", "cpu": "1500m"}},
        "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "C_"}],
        "env": [
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app/name']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "URL", "value": "$(IP):$(C_port)/$(UNKNOWN)/$$(IP)"},
        ],
    }
    found = environment(container, config_maps={("ai", "c"): {"data": {"port": "80"}}})
    assert found["LABEL"] == "x"
    assert (found["MEMORY"], found["CPU"]) == ("1024", "2")
    assert found["URL"] == "10.101.1.1:80/$(UNKNOWN)/$(IP)"


def test_environment_waits_for_what_is_missing_unless_it_is_optional() -> None:
    reference = {"name": "s", "key": "k"}
    with pytest.raises(NotYet, match='secret "s" not found'):
        environment({"env": [{"name": "A", "valueFrom": {"secretKeyRef": reference}}]})
    assert environment({"env": [{"name": "A", "valueFrom": {"secretKeyRef": reference | {"optional": True}}}]}) == {}


def test_image_is_found_by_its_name_and_command_and_args_replace_its_own() -> None:
    image = Image(("/bin/echo-basic",), ("--default",))
    assert find_image({"echo-basic": image}, "registry.example:5000/a/echo-basic:v1@sha256:00") is image
    with pytest.raises(NoSuchImage, match="nginx"):
        find_image({"echo-basic": image}, "nginx")
    assert command_line({}, image) == ["/bin/echo-basic", "--default"]
    assert command_line({"args": ["-v"]}, image) == ["/bin/echo-basic", "-v"]
    assert command_line({"command": ["sh"]}, image) == ["sh"]


def question(name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def test_dns_answers_known_names_and_denies_others() -> None:
    names = {"echo.ai.svc.cluster.local": ["10.96.0.9"]}
    a_record = dns.answer(question("echo.ai.svc.cluster.local", 1), names.get)
    assert a_record is not None
    assert a_record.endswith(socket.inet_aton("10.96.0.9"))
    aaaa_record = dns.answer(question("echo.ai.svc.cluster.local", 28), names.get)
    assert aaaa_record is not None
    assert struct.unpack("!HHHHHH", aaaa_record[:12])[1:4] == (0x8580, 1, 0)
    unknown = dns.answer(question("elsewhere.example", 1), names.get)
    assert unknown is not None
    assert unknown[3] & 15 == 3
    assert dns.answer(b"\0\1", names.get) is None


def test_logs_are_cut_by_time_and_number_of_lines() -> None:
    lines = [b"2026-01-01T00:00:01.000000Z a", b"2026-01-01T00:00:02.000000Z b", b"2026-01-01T00:00:03.000000Z c"]
    now = datetime.datetime(2026, 1, 1, 0, 0, 4, tzinfo=datetime.UTC)
    assert logs.selected(lines, logs.decode_log_query("sinceSeconds=2", now)) == [b"b", b"c"]
    assert logs.selected(lines, logs.decode_log_query("sinceTime=2026-01-01T00:00:03Z", now)) == [b"c"]
    assert logs.selected(lines, logs.decode_log_query("tailLines=1&timestamps=true", now)) == lines[-1:]
    with pytest.raises(ValueError, match="invalid literal"):
        logs.decode_log_query("tailLines=some", now)


SUITE_OUTPUT = """\
=== RUN   TestConformance
=== RUN   TestConformance/HTTPRouteWeight
=== RUN   TestConformance/HTTPRouteWeight/Requests_are_spread
    apply.go:280: Creating gateway
    http.go:12:
        Error Trace: x
        Error:       Received unexpected error
        Messages:    error waiting for consistency
=== RUN   TestConformance/HTTPRouteMirror
--- FAIL: TestConformance (12.00s)
    --- FAIL: TestConformance/HTTPRouteWeight (9.50s)
        --- FAIL: TestConformance/HTTPRouteWeight/Requests_are_spread (9.00s)
    --- SKIP: TestConformance/HTTPRouteMirror (0.00s)
    --- PASS: TestConformance/GatewayInfrastructure (1.25s)
"""


def test_conformance_output_becomes_a_table_with_reasons() -> None:
    collector = Collector()
    ended = [result.name for line in SUITE_OUTPUT.splitlines() if (result := collector.receive(line))]
    assert ended == ["HTTPRouteWeight", "HTTPRouteMirror", "GatewayInfrastructure"]
    assert table(collector.results.values()).splitlines() == [
        "FAIL           9.5 s  HTTPRouteWeight",
        "                      part: Requests are spread",
        "                      Received unexpected error",
        "                      error waiting for consistency",
        "PASS           1.2 s  GatewayInfrastructure",
        "1 pass, 1 fail, 1 skip",
    ]
