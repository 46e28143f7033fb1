"""Structured logs on stderr: for people (console) or machines (json)."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from hub.settings import Settings


def configure_logging(settings: Settings, *, level: str | None = None) -> None:
    """Route structlog and the standard library to stderr, in one format."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # The line's text is `message`; `event` is the hub's own word (passed as `_event`).
        structlog.processors.EventRenamer("message", "_event"),
    ]
    renderer: Any
    if settings.log_format == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            event_key="message",
            exception_formatter=structlog.dev.plain_traceback,  # rich ones show locals, and so secrets
        )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level or settings.log_level)
    for noisy in (
        "periodiq",
        "pika",
        "dramatiq",
        "urllib3",
        "psycopg",
        "zeep",
        "httpx",
        "uvicorn.access",
        "psycopg.pool",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs every refused connection with a traceback
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
