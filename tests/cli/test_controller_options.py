"""Options of `gwanmun controller` that only its pods would stumble over."""

import pytest

from gwanmun.app.controller import Controller
from gwanmun.cli.main import main

API_SERVER = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: me, user: {}}]
"""


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        ("--xds-address", "foo", "is not HOST:PORT, such as gwanmun-controller.gwanmun-system.svc:18000"),
        ("--xds-address", "foo:0", "is not HOST:PORT"),
        ("--xds-address", "https://foo:18000", "is not HOST:PORT"),
        ("--controller-name", "bad name", "is not DOMAIN/PATH, such as gwanmun.dev/gateway-controller"),
        ("--controller-name", "nopath", "is not DOMAIN/PATH"),
        ("--proxy-log-level", "verbose", "is not one of trace, debug, info, warning, error, critical, off"),
        ("--proxy-image-pull-policy", "Sometimes", "is not one of Always, IfNotPresent, Never"),
        ("--metrics-listen", "0.0.0.0:99999", "is not ADDRESS:PORT, such as 0.0.0.0:9090"),
        ("--metrics-listen", "::", "is not ADDRESS:PORT"),
    ],
)
def test_a_wrong_value_is_told_with_what_would_do(
    option: str, value: str, fix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path
) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(API_SERVER)
    asked = ["controller", "--log-format", "text", "--kubeconfig", str(kubeconfig), option, value]
    monkeypatch.setattr("sys.argv", ["gwanmun", *asked])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f'gwanmun: {option} "{value}" {fix}' in capsys.readouterr().err


@pytest.mark.parametrize("address", ["gwanmun-controller.gwanmun-system.svc:18000", "10.0.0.5:18000", "[2001:db8::7]:18000"])
def test_where_proxies_find_it_may_be_a_name_or_an_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    async def run(controller: Controller) -> None:
        ran.append(controller.options.fleet.xds_address)

    monkeypatch.setattr(Controller, "run", run)
    monkeypatch.setattr("sys.argv", ["gwanmun", "controller", "--log-format", "text", "--xds-address", address])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert ran == [address]
