"""Does bad input get a clear word and take nothing else down? Through the whole product, with a real Envoy."""

import asyncio
import os
import resource
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from serving import CLASS, Served, backend, gateway, ref, route, served, simulated, to, until

from free_ports import free_port
from gwanmun.app.certificates import Authority, tls_secret
from gwanmun.sim.spec import SimSpec

pytestmark = [pytest.mark.envoy, pytest.mark.asyncio(loop_scope="module")]

GOOD = route("good", to("good"))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A Gateway, a Backend and a route that works; tests put something bad beside it and take it away again."""
    port = free_port()
    async with simulated(SimSpec("good", "echo")) as [good]:
        texts = {"gateway": CLASS + gateway(port), "good": GOOD + backend("good", good.port)}
        async with served(tmp_path_factory.mktemp("bad") / "manifests", texts, port=port) as gw:
            yield gw


async def still_good(world: Served) -> None:
    response = await world.ask("/good")
    assert (response.status_code, response.headers.get("x-served-by")) == (200, "good")


async def gone(world: Served, *files: str) -> None:
    for file in files:
        (world.folder / f"{file}.yaml").unlink()
    await world.mended()
    await still_good(world)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


TOO_LARGE = "/((((a{1,9}){1,9}){1,9}b){1,2})*" + "[^/]{1,900}" * 12
"""Sound, but more than RE2 takes; nothing before Envoy knows that."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(route("bad", to("good"), host="b.example.com") + "\n---\n{ not: [yaml\n", ["bad.yaml:13"], id="yaml"),
        pytest.param(route("bad", to("good")).replace("HTTPRoute", "HTTPRuote"), ["HTTPRuote", "HTTPRoute"], id="kind"),
        pytest.param(route("bad", to("good")).replace("hostnames", "hostname"), ["hostname", "hostnames"], id="field"),
        pytest.param(route("bad", to("good")) + "  hostnames: [b]\n", ["hostnames", "twice"], id="duplicate key"),
        pytest.param(route("bad", to("nothing"), host="b.example.com"), ["BackendNotFound", "nothing"], id="no backend"),
        pytest.param(route("bad", to("good"), parent="nobody"), ["nobody"], id="no gateway"),
        pytest.param(BOMB, ["bad.yaml"], id="yaml bomb"),
        pytest.param("\x00\x01\x02", ["bad.yaml"], id="binary"),
        pytest.param("- 1\n- 2\n", ["bad.yaml"], id="no object"),
    ],
)
async def test_a_bad_file_is_named_and_the_rest_serves(world: Served, text: str, words: list[str]) -> None:
    (world.folder / "bad.yaml").write_text(text)
    await world.problem(*words)
    await still_good(world)
    await gone(world, "bad")


async def test_a_warning_is_shown_and_is_nothing_wrong(world: Served) -> None:
    (world.folder / "kustomization.yaml").write_text("resources: [a.yaml]\n")
    await world.problem("warning", "kustomization.yaml", "passed over")
    assert world.gateway.status()["healthy"]
    (world.folder / "kustomization.yaml").unlink()
    await world.mended()


async def test_good_documents_beside_a_bad_one_count(world: Served) -> None:
    text = route("beside", to("good"), host="b.example.com") + "---\napiVersion: v1\nkind: Servise\nmetadata: {name: x}\n"
    (world.folder / "bad.yaml").write_text(text)
    await world.problem("Servise", "Service")
    assert (await world.ask(host="b.example.com")).status_code == 200
    await gone(world, "bad")


async def test_a_conflicting_listener_says_so_and_the_first_serves_on(world: Served) -> None:
    again = f"{{name: again, port: {world.port}, protocol: TCP}}"
    text = gateway(world.port, name="two").replace("}]", f"}}, {again}]")
    (world.folder / "bad.yaml").write_text(text)
    await world.problem("two", "again", "Conflict")
    await still_good(world)
    await gone(world, "bad")


async def test_a_class_of_another_controller_is_told_who_is_served_here(tmp_path: Path) -> None:
    async with served(tmp_path / "manifests", {"a": CLASS}, port=free_port(), controllers=("x.com/mine",)) as gw:
        line = await gw.problem("GatewayClass gwanmun", "spec.controllerName")
        assert '"gwanmun.dev/gateway-controller" is another controller' in line
        assert (
            '"x.com/mine" is accepted here (or `gwanmun up --controller-name gwanmun.dev/gateway-controller` serves it)' in line
        )


async def test_a_certificate_that_does_not_match_its_key_is_named(world: Served) -> None:
    authority = Authority()
    one, two = authority.issue("a.example.com"), authority.issue("b.example.com")
    secret = tls_secret("default", "mixed", type(one)(one.certificate, two.private_key))
    tls = "{certificateRefs: [{name: mixed}]}"
    (world.folder / "bad.yaml").write_text(secret + gateway(free_port(), name="secure", tls=tls))
    line = await world.problem("secure", "mixed")
    assert "is not the key" in line
    assert "PRIVATE" not in "".join(world.problems)
    await still_good(world)
    await gone(world, "bad")


REFUSED = [
    pytest.param(
        f"matches: [{{path: {{type: RegularExpression, value: '{TOO_LARGE}'}}}}]", id="an expression too large for the proxy"
    ),
    pytest.param(
        "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: '/a\\nb'}}}]".replace(
            "'", '"'
        ),
        id="a line break in a path",
    ),
]


@pytest.mark.parametrize("fields", REFUSED)
async def test_what_the_api_allows_and_envoy_refuses_is_shown_and_holds_nobody_up(world: Served, fields: str) -> None:
    await world.edit(other=route("other", to("good"), host="other.example.com"))
    (world.folder / "bad.yaml").write_text(
        route("refused", f"{{{fields}, backendRefs: [{ref('good')}]}}", host="c.example.com")
    )
    await world.problem("HTTPRoute default/refused", "Accepted", "UnsupportedValue")
    await still_good(world)
    await world.edit(other=route("other", to("good"), host="another.example.com"))  # others can still be changed
    assert (await world.ask(host="another.example.com")).status_code == 200
    (world.folder / "bad.yaml").write_text(route("refused", to("good"), host="c.example.com"))
    await world.mended()
    assert (await world.ask(host="c.example.com")).status_code == 200
    await gone(world, "bad", "other")


async def test_a_port_of_a_foreign_process_is_named(world: Served) -> None:
    with socket.socket() as foreign:
        foreign.bind((world.address, 0))
        foreign.listen()
        port = foreign.getsockname()[1]
        (world.folder / "bad.yaml").write_text(gateway(port, name="late"))
        await world.problem("late", str(port))
        await still_good(world)
    await gone(world, "bad")


async def test_a_folder_that_vanishes_takes_nothing_away(world: Served) -> None:
    away = world.folder.with_name("away")
    world.folder.rename(away)
    await world.problem(str(world.folder), "not there")
    await still_good(world)
    away.rename(world.folder)
    await world.mended()
    await world.edit(extra=route("extra", to("good"), host="d.example.com"))
    assert (await world.ask(host="d.example.com")).status_code == 200
    await world.edit(extra=None)


async def test_a_folder_that_is_deleted_and_made_anew_is_followed(world: Served) -> None:
    copy = world.folder.with_name("copy")
    shutil.copytree(world.folder, copy)
    shutil.rmtree(world.folder)
    await world.problem(str(world.folder), "not there")
    await still_good(world)
    shutil.copytree(copy, world.folder)
    shutil.rmtree(copy)
    await world.mended()
    await world.edit(extra=route("extra", to("good"), host="d.example.com"))
    await world.edit(extra=None)


async def test_envoy_killed_comes_back_and_serves(world: Served) -> None:
    pid = world.gateway.status()["envoy"]["pid"]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: world.gateway.status()["envoy"]["restarts"] == 1)
    await until(lambda: world.gateway.status()["envoy"]["state"] == "serves")
    await world.answers("/good", by="good")
    assert world.gateway.status()["envoy"]["pid"] != pid


async def test_a_manifest_of_ten_megabytes(world: Served) -> None:
    note = "x" * 1000
    documents = [f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}}}\ndata: {{a: '{note}'}}\n" for n in range(10_000)]
    text = "---\n".join(documents) + route("large", to("good"), host="e.example.com")
    assert len(text) > 10_000_000
    await world.edit(large=text)
    assert (await world.ask(host="e.example.com")).status_code == 200
    await gone(world, "large")


@pytest.mark.slow
async def test_ten_thousand_routes(tmp_path: Path) -> None:
    port = free_port()
    async with simulated(SimSpec("good", "echo")) as [good]:
        texts = {"gateway": CLASS + gateway(port), "good": GOOD + backend("good", good.port)}
        async with served(tmp_path / "manifests", texts, port=port) as gw:
            many = "".join(route(f"r{n}", to("good"), host=f"h{n}.example.com") for n in range(10_000))
            (gw.folder / "many.yaml").write_text(many)
            asked = 0
            async with gw.client() as client, asyncio.timeout(120):
                while (await client.get("/", headers={"host": "h9999.example.com"})).status_code != 200:
                    assert (await client.get("/")).status_code == 200
                    asked += 1
                    await asyncio.sleep(0.05)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1_000_000  # KiB, the test runner included
            await gw.edit(more=route("more", to("good"), host="more.example.com"))
            assert (await gw.ask(host="more.example.com")).status_code == 200
            assert not gw.problems
