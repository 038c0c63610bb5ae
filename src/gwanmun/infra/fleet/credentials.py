"""Files for Envoy about the control plane, kept in step with those that the kubelet keeps.

Kubelets renew a volume by moving a link above its files, which Envoy does not notice when it has been told of a file. So
what it reads are copies, moved to their place whole.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from gwanmun.infra.bootstrap import ca_secret_file, token_secret_file
from gwanmun.infra.rundir import RunDir

_LARGEST = 1 << 20


class CredentialsError(Exception):
    """A file is missing or unusable; the text says which and why."""


@dataclass(slots=True)
class Credentials:
    """`token` and `ca` are the kubelet's files; `token_secret` and `ca_secret` Envoy's."""

    token: Path
    ca: Path
    rundir: RunDir
    _written: dict[str, bytes] = field(default_factory=dict)

    @property
    def token_secret(self) -> Path:
        return self.rundir.path / "xds-token.json"

    @property
    def ca_secret(self) -> Path:
        return self.rundir.path / "xds-ca.json"

    def refresh(self) -> tuple[str, ...]:
        """Write what has changed; returns the names of those files. Raises CredentialsError, and then writes nothing."""
        contents = {
            self.token_secret.name: token_secret_file(_read(self.token)),
            self.ca_secret.name: ca_secret_file(_read(self.ca)),
        }
        changed = tuple(name for name, content in contents.items() if self._written.get(name) != content)
        for name in changed:
            self.rundir.write(name, contents[name])
        self._written = contents
        return changed


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise CredentialsError(f"{path} has more than {_LARGEST} bytes")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not text") from None
    if not text:
        raise CredentialsError(f"{path} is empty")
    return text


async def wait_for_credentials(credentials: Credentials, *, patience: float, poll: float = 0.2) -> None:
    """Write them for the first time, as soon as they are there. Raises CredentialsError when `patience` seconds are over."""
    try:
        async with asyncio.timeout(patience):
            while True:
                try:
                    credentials.refresh()
                except CredentialsError as error:
                    problem = error
                    await asyncio.sleep(poll)
                else:
                    return
    except TimeoutError:
        raise problem from None
