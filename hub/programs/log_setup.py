"""Structured logging on stderr, in the format `console` (text) or `json`.

With `HUB_LOG_FORMAT=json` every line is one JSON object, including log lines of libraries, warnings and uncaught
exceptions. Fields of every line: `message`, `level`, `logger`, `timestamp` (ISO 8601, UTC), `host`, `pid`,
`version`. Lines about a task add `task`, `event` (its name), `event_id`, `key` (idempotency key), `attempt`, `rule`
and `service`.
"""

from __future__ import annotations

import logging
import sys
import threading
import types
import warnings
from typing import Any

import structlog

from hub.programs.log_lines import StderrHandler, StderrLogger, as_json, as_text, escape_values
from hub.settings import Settings


def _log_uncaught() -> None:
    """Log uncaught exceptions and warnings, instead of Python's own text on stderr."""
    log = structlog.get_logger("hub.programs.log_setup")

    def uncaught(
        kind: type[BaseException], error: BaseException | None, trace: types.TracebackType | None, **where: object
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            log.warning("interrupted")
        elif not issubclass(kind, SystemExit):
            log.critical("uncaught exception", exc_info=(kind, error, trace), **where)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        uncaught(args.exc_type, args.exc_value, args.exc_traceback, thread=args.thread.name if args.thread else None)

    def unraisable(args: Any) -> None:
        uncaught(args.exc_type, args.exc_value, args.exc_traceback, where=args.err_msg)

    def warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        log.warning(str(message), category=category.__name__, at=f"{filename}:{lineno}")

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, in_thread, unraisable
    warnings.showwarning = warn


def configure_logging(settings: Settings, *, level: str | None = None) -> None:
    """Route structlog and the standard library to stderr, in one format."""
    least = level or settings.log_level
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # The text of a line is `message`. `event` means an event of the hub, which is passed as `_event`.
        structlog.processors.EventRenamer("message", "_event"),
        structlog.processors.format_exc_info,
    ]
    last: list[Any] = [as_json if settings.log_format == "json" else as_text]
    if settings.log_format == "console" and sys.stderr.isatty():
        shared.pop()  # the renderer formats exceptions
        last = [
            escape_values,
            structlog.dev.ConsoleRenderer(
                event_key="message",
                exception_formatter=structlog.dev.plain_traceback,  # Rich ones show local variables: secrets too
            ),
        ]
    structlog.configure(
        processors=[*shared, *last],
        logger_factory=StderrLogger,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[least]),
        cache_logger_on_first_use=True,
    )
    handler = StderrHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last], foreign_pre_chain=shared
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    if settings.log_format == "json":
        _log_uncaught()
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
