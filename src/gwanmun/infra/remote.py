"""What a proxy is started with whose control plane is on another machine: TLS towards it, and a token that says who we are.

Pure, like `bootstrap`, which this extends. Envoy sends the content of the token's file with every new stream, and reads it
anew when it is exchanged (a projected volume exchanges a link in its folder).
"""

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from gwanmun.infra.bootstrap import XDS_CLUSTER, AdminAddress, BootstrapOptions, bootstrap

TOKEN_SECRET: Final = "xds_token"  # noqa: S105  its name

_TYPE: Final = "type.googleapis.com/"
_HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class RemoteOptions:
    """`server_name` has to be in the control plane's certificate, which an authority in the file `authorities` has signed.
    `token` is a file, and `token_source` the file with `token_document`, both in folders that may be exchanged as a whole."""

    node_id: str
    admin: AdminAddress
    host: str
    port: int
    server_name: str
    authorities: PurePath
    token: PurePath
    token_source: PurePath
    zone: str | None = None
    max_connections: int | None = None


def remote_bootstrap(options: RemoteOptions) -> dict[str, Any]:
    """Envoy's bootstrap as its JSON says it."""
    document = bootstrap(
        BootstrapOptions(
            node_id=options.node_id,
            admin=options.admin,
            xds_socket=PurePath("/"),  # replaced below
            zone=options.zone,
            max_connections=options.max_connections,
        )
    )
    document["static_resources"]["clusters"] = [_xds_cluster(options)]
    return document


def token_document(options: RemoteOptions) -> dict[str, Any]:
    """What the file `token_source` says: where the token is."""
    token = {"filename": str(options.token), "watched_directory": {"path": str(options.token.parent)}}
    secret = {"name": TOKEN_SECRET, "generic_secret": {"secret": token}}
    return {"resources": [{"@type": _TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret", **secret}]}


def _xds_cluster(options: RemoteOptions) -> dict[str, Any]:
    address = {"address": options.host, "port_value": options.port}
    return {
        "name": XDS_CLUSTER,
        "type": "STRICT_DNS",
        "dns_lookup_family": "ALL",
        "connect_timeout": "2s",
        # A control plane that has died without a word is noticed, and the next one asked, within seconds.
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 15, "keepalive_interval": 5, "keepalive_probes": 3}
        },
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": _TYPE + _HTTP_OPTIONS,
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": {"interval": "15s", "timeout": "5s"}}
                },
                "http_filters": [_token_injector(options), _UPSTREAM_CODEC],
            }
        },
        "transport_socket": _tls(options),
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    }


def _token_injector(options: RemoteOptions) -> dict[str, Any]:
    source = {
        "path_config_source": {
            "path": str(options.token_source),
            "watched_directory": {"path": str(options.token.parent)},
        }
    }
    credential = _extension(
        "envoy.http.injected_credentials.generic",
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        credential={"name": TOKEN_SECRET, "sds_config": source},
        header_value_prefix="Bearer ",
    )
    return _extension(
        "envoy.filters.http.credential_injector",
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        overwrite=True,
        credential=credential,
    )


def _tls(options: RemoteOptions) -> dict[str, Any]:
    validation = {
        "trusted_ca": {
            "filename": str(options.authorities),
            "watched_directory": {"path": str(options.authorities.parent)},
        },
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": options.server_name}}],
    }
    return _extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        sni=options.server_name,
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["h2"],
            "validation_context": validation,
        },
    )


def _extension(name: str, type_name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": _TYPE + type_name, **fields}}


_UPSTREAM_CODEC: Final = _extension(
    "envoy.filters.http.upstream_codec", "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
)
