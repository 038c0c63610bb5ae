"""Do the container files belong to the code that they build?"""

import re
import tomllib

from pages import ROOT


def test_the_compiler_of_the_image_can_build_the_module() -> None:
    image = re.search(r"^ARG RUST=rust:([\d.]+)", (ROOT / "containers/Containerfile").read_text(), re.MULTILINE)
    needed = tomllib.loads((ROOT / "native/Cargo.toml").read_text())["package"]["rust-version"]
    assert image is not None
    assert _numbers(image[1]) >= _numbers(needed)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]
