"""Structured logs on stderr: for people (console) or machines (json)."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from hub.settings import Settings

# What moves a terminal's cursor, begins a line or turns text around.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_QUOTED = re.compile("""[ \t=\r\n"']""")  # the renderer quotes and escapes values with one of these by itself


def _on_one_line(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Nothing that came from outside forges a line, or plays with the terminal of who reads it."""
    for name, value in line.items():
        if not isinstance(value, str) or name in ("exception", "stack") or not _CONTROL.search(value):
            continue
        if name == "message" or not _QUOTED.search(value):
            line[name] = _CONTROL.sub(lambda found: repr(found[0])[1:-1], value)
    return line


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
    last: list[Any] = []
    if settings.log_format == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    else:
        last.append(_on_one_line)
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
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last, renderer],
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
