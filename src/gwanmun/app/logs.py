"""Logs are events with fields; every line of the JSON form is one object."""

import logging
import os
import sys
from types import TracebackType

import structlog

log = structlog.get_logger()


def configure_logs(form: str, *, level: str = "info", quiet: bool = False) -> None:
    """To stderr, as `text` for people or `json`, from that level on (debug, info, warning or error); `quiet` keeps warnings and
    errors alone."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING if quiet else level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def configure_program_logs(form: str, *, level: str = "info") -> None:
    """`configure_logs` for a program that runs in a pod: in the JSON form also what libraries say, and what ends it.

    To be called before gRPC is imported, whose core writes lines of its own about every handshake that fails.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    configure_logs(form, level=level)
    if form == "json":
        logging.basicConfig(handlers=[_Handler()], level=logging.WARNING, force=True)  # asyncio's complaints come here, too
        logging.captureWarnings(True)
        sys.excepthook = _crashed


class _Handler(logging.Handler):
    """What Python's own logging is told, as an event."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, "library_message", logger=record.name, message=record.getMessage(), exc_info=record.exc_info)


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("crashed", message=str(error), exc_info=(kind, error, trace))
