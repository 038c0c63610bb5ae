"""Builds the programs of the cluster from the Go modules pinned in `go/`, once per content of `go/`, into `bin/<key>/`.

The key covers everything that decides the result: sources, go.mod, go.sum, flags, Go version and platform. Cold this takes
5 to 7 minutes on two cores and 2 GB of memory; with Go's caches warm 15 seconds; with `bin/` there, nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "go"
BIN = HERE / "bin"
KUBERNETES = "v1.36.3"
HELM = "v4.2.4"
GATEWAY_API = "v1.6.3"

# Without a version the server calls itself v0.0.0-master, which kubectl's skew check and a chart's kubeVersion would see.
LDFLAGS = " ".join(
    [
        "-s -w",
        f"-X k8s.io/component-base/version.gitVersion={KUBERNETES}",
        "-X k8s.io/component-base/version.gitMajor=1",
        "-X k8s.io/component-base/version.gitMinor=36",
        f"-X k8s.io/client-go/pkg/version.gitVersion={KUBERNETES}",
        f"-X helm.sh/helm/v4/internal/version.version={HELM}",
    ]
)
# No DWARF: a fifth less time and cache. The same flag for every target, or nothing is shared between them.
FLAGS = ("-gcflags=all=-dwarf=false", "-ldflags", LDFLAGS)
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false -mod=readonly", "GOTOOLCHAIN": "local"}
TARGETS = ("./kubebits", "sigs.k8s.io/gateway-api/conformance/echo-basic", "helm.sh/helm/v4/cmd/helm")
NAMES_OF_KUBEBITS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")


class BuildError(Exception):
    """There is no Go, or it said no; the text says what to do."""


def build() -> Path:
    """The folder with the programs, built first where it is missing. BuildError where Go is missing or fails."""
    _require_go()
    target = BIN / _key()
    if not target.exists():
        print(f"== building the test cluster's programs into {target} (5-7 minutes the first time)", flush=True)
        BIN.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BIN, prefix=".new-") as folder:
            made = Path(folder) / "bin"
            _build_into(made)
            try:
                made.rename(target)  # all or nothing, so an interrupted build is never mistaken for a finished one
            except OSError:
                if not target.exists():  # else another process was faster, with the same content
                    raise
    return target


def gateway_api_crds() -> Path:
    """The folder of the experimental channel's CRDs, as the pinned gateway-api module carries them."""
    module = _go("list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").strip()
    return Path(module) / "config" / "crd" / "experimental"


def _build_into(folder: Path) -> None:
    _go("build", *FLAGS, "-o", f"{folder}/", *TARGETS)
    _go("test", "-c", *FLAGS, "-o", f"{folder}/conformance.test", "./conf")
    for name in NAMES_OF_KUBEBITS:
        (folder / name).symlink_to("kubebits")
    # The CRDs travel with the programs: a machine that got `bin/` from a cache needs neither modules nor network.
    shutil.copytree(gateway_api_crds(), folder / "crds")


def _key() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(SOURCES)}\0".encode() + path.read_bytes() + b"\0")
    digest.update(repr((FLAGS, ENVIRONMENT, TARGETS, _go("version"))).encode())
    return digest.hexdigest()[:12]


def _require_go() -> None:
    if shutil.which("go") is None:
        raise BuildError("the test cluster is built by Go 1.26 or newer, and there is no `go` on PATH")


def _go(*arguments: str) -> str:
    done = subprocess.run(
        ["go", *arguments], cwd=SOURCES, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"go {arguments[0]} failed with status {done.returncode}; its messages are above")
    return done.stdout


if __name__ == "__main__":
    print(build())
