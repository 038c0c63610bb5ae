"""The last filter: sends the request to a backend."""

from gwanmun.xds.types import Fields, extension


def router() -> Fields:
    return extension(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,  # x-envoy-upstream-service-time and the like are nobody's business
    )
