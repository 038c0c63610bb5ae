"""What the test cluster promises to tests: pods, Services, logs, tokens, roll-outs, and that nothing of it stays behind."""

import asyncio
import base64
import json
import os
import signal
from typing import Any

import httpx
import pytest
from tests.kubernetes.cluster import Cluster, ClusterError, ClusterOptions, state

pytestmark = [pytest.mark.kubernetes, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

ECHO = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  replicas: 3
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: topology.kubernetes.io/zone
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: echo}}
      containers:
      - name: echo
        image: registry.example/gateway-api/echo-basic:v1
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        readinessProbe: {httpGet: {path: /health, port: 3000}}
        lifecycle: {preStop: {sleep: {seconds: 1}}}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  type: LoadBalancer
  trafficDistribution: PreferSameZone
  selector: {app: echo}
  ports: [{name: http, port: 80, targetPort: 3000}]
"""


def script_pod(script: str, *, volumes: str = "[]", mounts: str = "[]", more: str = "") -> str:
    """A pod `p` that runs a shell script, which the caller writes without double quotes."""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: p, labels: {{team: red}}}}
spec:
  terminationGracePeriodSeconds: 3
  volumes: {volumes}
  containers:
  - name: main
    image: busybox
    command: [/bin/sh, -c, "{script}"]
    volumeMounts: {mounts}
    {more}
"""


async def start_echo(cluster: Cluster, namespace: str) -> str:
    """Three echo servers; the answer is their LoadBalancer address."""
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=ECHO)
    await cluster.kubectl("rollout", "status", "deployment/echo", "-n", namespace, "--timeout=30s")

    async def address() -> Any:
        service = await cluster.get("service", "echo", namespace)
        return (service["status"]["loadBalancer"].get("ingress") or [{}])[0].get("ip")

    found: str = await cluster.eventually("the Service has an address", address)
    return found


async def log_of(cluster: Cluster, namespace: str, until: str) -> str:
    async def logs() -> Any:
        text = await cluster.kubectl("logs", "p", "-n", namespace)
        return text if until in text else None

    text: str = await cluster.eventually(f"the log has {until!r}", logs)
    return text


async def test_deployment_becomes_ready_with_a_pod_in_every_zone(cluster: Cluster, namespace: str) -> None:
    await start_echo(cluster, namespace)

    async def endpoints() -> Any:
        text = await cluster.kubectl("get", "endpointslices", "-n", namespace, "-o", "json")
        found = [endpoint for item in json.loads(text)["items"] for endpoint in item["endpoints"] or []]
        return found if len(found) == 3 and all(e["conditions"]["ready"] and e.get("hints") for e in found) else None

    found = await cluster.eventually("three ready endpoints with hints", endpoints)
    assert {endpoint["zone"] for endpoint in found} == {"zone-a", "zone-b", "zone-c"}
    assert all(endpoint["hints"]["forZones"] == [{"name": endpoint["zone"]}] for endpoint in found)


async def test_load_balancer_address_and_dns_name_answer_and_logs_tell(cluster: Cluster, namespace: str) -> None:
    address = await start_echo(cluster, namespace)
    with cluster.network():
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = (await client.get(f"http://{address}/by-address")).json()
    assert answer["namespace"] == namespace
    logs = await cluster.kubectl("logs", answer["pod"], "-n", namespace, "--since=60s")
    assert "/by-address" in logs
    script = f"curl -s http://echo/by-name; curl -s http://echo.{namespace}.svc.cluster.local/; echo done; sleep 1000"
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=script_pod(script))
    text = await log_of(cluster, namespace, "done")
    assert "/by-name" in text
    assert text.count(f'"namespace": "{namespace}"') == 2


async def test_projected_token_is_valid_for_its_audience_only(cluster: Cluster, namespace: str) -> None:
    volumes = "[{name: t, projected: {sources: [{serviceAccountToken: {path: token, audience: gateway-xds}}]}}]"
    pod = script_pod(
        "cat /var/run/xds/token; echo; echo done; sleep 1000", volumes=volumes, mounts="[{name: t, mountPath: /var/run/xds}]"
    )
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=pod)
    token = (await log_of(cluster, namespace, "done")).splitlines()[0]

    async def review(audience: str) -> Any:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [audience]},
        }
        text = await cluster.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(body))
        return json.loads(text)["status"]

    right = await review("gateway-xds")
    assert right["authenticated"]
    assert right["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert right["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["p"]
    assert not (await review("something-else")).get("authenticated")


async def test_rolling_update_loses_no_request(cluster: Cluster, namespace: str) -> None:
    address = await start_echo(cluster, namespace)
    over = asyncio.Event()
    statuses: list[int] = []

    async def ask() -> None:
        with cluster.network():
            client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        async with client:
            while not over.is_set():
                with cluster.network():
                    statuses.append((await client.get(f"http://{address}/")).status_code)

    asking = asyncio.create_task(ask())
    await cluster.kubectl("set", "env", "deployment/echo", "-n", namespace, "VERSION=2")
    await cluster.kubectl("rollout", "status", "deployment/echo", "-n", namespace, "--timeout=60s")
    over.set()
    await asking
    assert len(statuses) > 20
    assert set(statuses) == {200}


async def test_volumes_and_environment_show_what_they_refer_to_and_follow_it(cluster: Cluster, namespace: str) -> None:
    volumes = (
        "[{name: s, secret: {secretName: s}}, {name: e, emptyDir: {}}, "
        "{name: c, configMap: {name: c, items: [{key: k, path: deep/file}]}}]"
    )
    mounts = "[{name: s, mountPath: /secrets}, {name: c, mountPath: /etc/made/here}, {name: e, mountPath: /tmp}]"
    environment = (
        "env: [{name: FROM_SECRET, valueFrom: {secretKeyRef: {name: s, key: k}}}, "
        "{name: TEAM, valueFrom: {fieldRef: {fieldPath: 'metadata.labels[''team'']'}}}, "
        "{name: BOTH, value: $(FROM_SECRET)-$(TEAM)}]"
    )
    script = (
        "echo $BOTH; cat /etc/made/here/deep/file; echo; ls /tmp; touch /secrets/new || echo read-only; "
        "until grep -q two /secrets/k; do sleep 0.1; done; echo followed; sleep 1000"
    )
    pod = script_pod(script, volumes=volumes, mounts=mounts, more=environment)
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=pod)

    async def waiting() -> Any:
        found = await cluster.get("pod", "p", namespace)
        statuses = found["status"].get("containerStatuses") or [{}]
        return 'secret "s" not found' in str(statuses[0].get("state"))

    await cluster.eventually("the pod says what it is waiting for", waiting)
    await cluster.kubectl("create", "secret", "generic", "s", "-n", namespace, "--from-literal=k=one")
    await cluster.kubectl("create", "configmap", "c", "-n", namespace, "--from-literal=k=map")
    text = await log_of(cluster, namespace, "read-only")
    assert text.startswith("one-red\nmap\n")
    patch = {"data": {"k": base64.b64encode(b"two").decode()}}
    await cluster.kubectl("patch", "secret", "s", "-n", namespace, "-p", json.dumps(patch))
    await log_of(cluster, namespace, "followed")


async def test_termination_is_graceful_and_a_crash_is_restarted(cluster: Cluster, namespace: str) -> None:
    script = (
        "trap 'echo asked to end; exit 0' TERM; [ -e /kept/once ] || { touch /kept/once; exit 3; }; while :; do sleep 0.1; done"
    )
    pod = script_pod(script, volumes="[{name: e, emptyDir: {}}]", mounts="[{name: e, mountPath: /kept}]")
    await cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=pod)

    async def restarted() -> Any:
        status = (await cluster.get("pod", "p", namespace))["status"]["containerStatuses"][0]
        return status if status["restartCount"] == 1 and "running" in status["state"] else None

    status = await cluster.eventually("the container runs again", restarted)
    assert status["lastState"]["terminated"]["exitCode"] == 3
    await cluster.kubectl("delete", "pod", "p", "-n", namespace)
    (log,) = (cluster.state / "logs" / "pods").glob(f"{namespace}_p_main_*.log")
    assert "asked to end" in log.read_text()


async def test_pods_go_on_while_the_api_server_is_away(cluster: Cluster, namespace: str) -> None:
    address = await start_echo(cluster, namespace)
    async with cluster.without("kube-apiserver"):
        with pytest.raises(ClusterError):
            await cluster.kubectl("get", "nodes", "--request-timeout=2s")
        assert "200" in await cluster.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{address}/")

    async def scaled() -> Any:
        await cluster.kubectl("scale", "deployment/echo", "-n", namespace, "--replicas=4")
        return (await cluster.get("deployment", "echo", namespace))["status"].get("readyReplicas") == 4

    await cluster.eventually("the cluster works again", scaled, within=60)


async def test_zones_are_as_far_apart_as_asked_and_their_traffic_is_counted() -> None:
    async with Cluster(options=ClusterOptions(nodes=3, crds=False, zone_delay=0.02)) as far:
        await start_echo(far, "default")
        pods = json.loads(await far.kubectl("get", "pods", "-o", "json"))["items"]
        address = {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in pods}
        asking = "curl -s -o /dev/null -w '%{time_connect} ' http://"
        script = f"{asking}{address['zone-a-0']}:3000; {asking}{address['zone-b-0']}:3000; echo done; sleep 1000"
        pod = script_pod(script, more="").replace("spec:", "spec:\n  nodeName: zone-a-0", 1)
        await far.kubectl("apply", "-f", "-", stdin=pod)
        near_by, far_off = map(float, (await log_of(far, "default", "done")).split()[:2])
        assert near_by < 0.02
        assert 0.04 <= far_off < 0.2

        async def counted() -> bool:
            return far.crossed().keys() == {"zone-a>zone-b", "zone-b>zone-a"}

        await far.eventually("the traffic is counted", counted)


async def test_nothing_stays_behind_when_a_cluster_is_killed(cluster: Cluster) -> None:
    other = Cluster(f"killed-{os.getpid()}", ClusterOptions(nodes=3, crds=False))
    await other.start(with_parent=True)
    init = other.init()
    members = f"/proc/{init.pid}/ns/pid_for_children"
    namespace = os.readlink(members)
    os.kill(init.pid, signal.SIGKILL)
    await other.eventually("its process 1 is gone", lambda: asyncio.to_thread(lambda: not init.alive()))
    assert not _processes_in(namespace)
    state.remove_dead()
    assert not other.state.exists()
    assert "zone-a-0" in await cluster.kubectl("get", "nodes")  # the other one was beside it all the time


def _processes_in(pid_namespace: str) -> list[str]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == pid_namespace:
                found.append(entry)
        except OSError:
            continue  # it ended while we looked
    return found
