"""Words that options and a pod's variables may say, checked where a person reads the answer: else only pods would fail."""

import re
from collections.abc import Sequence
from typing import Final

from gwanmun.app.errors import UserError
from gwanmun.resolve.world import Settings

ENVOY_LOG_LEVELS: Final = ("trace", "debug", "info", "warning", "error", "critical", "off")
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_HOST_PORT: Final = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]\s/]+)):(?P<port>[0-9]{1,5})")
_CONTROLLER_NAME: Final = re.compile(
    r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
)
"""As the CRD of GatewayClass has it."""


def host_and_port(option: str, text: str, *, example: str) -> tuple[str, int]:
    """Of "host:port" or "[v6]:port". UserError where it is neither."""
    found = _HOST_PORT.fullmatch(text)
    if found is None or not is_port(found["port"]):
        raise UserError(f'{option} "{text}" is not HOST:PORT, such as {example}')
    return found["v6"] or found["host"], int(found["port"])


def is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) < 65_536


def one_of(option: str, text: str, words: Sequence[str]) -> str:
    """The text. UserError where it is none of the words."""
    if text not in words:
        raise UserError(f'{option} "{text}" is not one of {", ".join(words)}')
    return text


def settings_of(names: Sequence[str]) -> Settings:
    """With these names of controllers, or with ours. UserError where no GatewayClass can have one of them."""
    return Settings(controller_names(names)) if names else Settings()


def controller_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names. UserError where no GatewayClass can have one of them."""
    for name in names:
        if len(name) > 253 or not _CONTROLLER_NAME.fullmatch(name):
            raise UserError(f'--controller-name "{name}" is not DOMAIN/PATH, such as gwanmun.dev/gateway-controller')
    return tuple(names)
