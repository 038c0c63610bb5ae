"""What only the cluster around tells about what a status says: which CRDs there are, and what may not be read. Pure."""

from typing import Any

Document = dict[str, Any]


def unread(document: Document, message: str) -> Document:
    """The status document of who names parameters that cannot be read, where it says that they do not exist."""
    conditions = [
        {**condition, "message": message} if condition["reason"] == "InvalidParameters" else condition
        for condition in document.get("conditions", [])
    ]
    return {**document, "conditions": conditions}


def unsupported(document: Document, message: str) -> Document:
    """The status document of a GatewayClass where CRDs are of versions that are not ours. It stays Accepted: the Gateway API
    calls that "best effort" support."""
    conditions = [
        {**condition, "status": "False", "reason": "UnsupportedVersion", "message": message}
        if condition["type"] == "SupportedVersion"
        else condition
        for condition in document.get("conditions", [])
    ]
    return {**document, "conditions": conditions}
