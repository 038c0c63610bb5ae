"""`Present`: what whoever writes an object's status has to know of the object as it is."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Present:
    """An object as the API server has it now. `status` is of the type that the object's kind has in `api`."""

    api_version: str
    uid: str
    resource_version: str
    generation: int
    status: Any
