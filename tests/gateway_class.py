"""The GatewayClass of most manifests in tests."""

GATEWAY_CLASS = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gwanmun}
spec: {controllerName: gwanmun.dev/gateway-controller}
"""
