"""Which cluster a kubeconfig means, also where $KUBECONFIG names several files."""

import os
from pathlib import Path

import pytest

from gwanmun.kube import KubeConfigError, connection

CURRENT = "current-context: here\n"
CONTEXTS = """
contexts:
- {name: here, context: {cluster: one, user: me, namespace: ai}}
- {name: there, context: {cluster: two, user: me}}
"""
CLUSTERS = """
clusters:
- {name: one, cluster: {server: "https://one", certificate-authority: ca.crt}}
- {name: two, cluster: {server: "https://two"}}
"""
USERS = "users: [{name: me, user: {client-key: keys/me.key, token: secret}}]\n"


def written(folder: Path, name: str, *parts: str) -> Path:
    path = folder / name / "config"
    path.parent.mkdir()
    path.write_text("".join(parts))
    return path


def listed(*paths: Path) -> dict[str, str]:
    return {"KUBECONFIG": os.pathsep.join(map(str, paths))}


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    first = written(tmp_path, "first", CURRENT, CONTEXTS)
    second = written(tmp_path, "second", "current-context: there\n", CLUSTERS)
    third = written(tmp_path, "third", USERS)
    found = connection(environment=listed(tmp_path / "missing", first, second, third))
    assert (found.config.cluster.server, found.namespace) == ("https://one", "ai")
    assert found.config.cluster.certificate_auth == str(tmp_path / "second" / "ca.crt")
    assert found.config.user is not None
    assert found.config.user.client_key == str(tmp_path / "third" / "keys" / "me.key")
    assert connection(None, "there", environment=listed(first, second, third)).config.cluster.server == "https://two"


def test_the_first_to_say_something_wins(tmp_path: Path) -> None:
    first = written(tmp_path, "first", CONTEXTS, USERS, CLUSTERS)
    second = written(tmp_path, "second", CURRENT, CLUSTERS.replace("https://one", "https://other"))
    assert connection(environment=listed(first, second)).config.cluster.server == "https://one"


def test_one_file_is_read_as_ever(tmp_path: Path) -> None:
    only = written(tmp_path, "only", CURRENT, CONTEXTS, CLUSTERS, USERS)
    assert connection(environment=listed(only)).config.cluster.server == "https://one"


@pytest.mark.parametrize("content", ["", "[]", "clusters: 3", "clusters: [3]", "clusters: [{cluster: {}}]", "a: ]["])
def test_what_cannot_be_read_is_told(content: str, tmp_path: Path) -> None:
    files = written(tmp_path, "first", content), written(tmp_path, "second", "")
    for environment in (listed(*files), listed(files[0])):
        with pytest.raises(KubeConfigError, match="no cluster to talk to"):
            connection(environment=environment)


def test_the_hint_is_one_that_the_command_has(tmp_path: Path) -> None:
    missing = listed(tmp_path / "a", tmp_path / "b")
    with pytest.raises(KubeConfigError, match=r"; set KUBECONFIG$"):
        connection(environment=missing)
    with pytest.raises(KubeConfigError, match=r"; give --kubeconfig or set KUBECONFIG$"):
        connection(environment=missing, hint="give --kubeconfig or set KUBECONFIG")
