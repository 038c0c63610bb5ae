"""Conditions on their way out: as Kubernetes `status` documents and as rows for people."""

from gwanmun.status.document import status_document
from gwanmun.status.rows import StatusRow, healthy, row_document, rows, status_row

__all__ = ["StatusRow", "healthy", "row_document", "rows", "status_document", "status_row"]
