"""Structured logging on stderr, in the format `console` (text) or `json`.

With `HUB_LOG_FORMAT=json` every line is one JSON object, including log lines of libraries, warnings and uncaught
exceptions. Fields of every line: `message`, `level`, `logger`, `timestamp` (ISO 8601, UTC), `host`, `pid`,
`version`. Lines about a task add `task`, `_event` (event name), `event_id`, `key` (idempotency key), `attempt`, `rule`
and `service`.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import threading
import types
import warnings
from collections.abc import MutableMapping
from typing import Any

import structlog

from hub import __version__
from hub.settings import Settings

# Characters that move a terminal's cursor, start a line or reverse the text direction.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_QUOTED = re.compile("""[ \t=\r\n"']""")  # the renderer quotes and escapes values that contain one of these


def _on_one_line(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters: a value from outside must not forge a log line or control the reader's terminal."""
    for name, value in line.items():
        if not isinstance(value, str) or name in ("exception", "stack") or not _CONTROL.search(value):
            continue
        if name == "message" or not _QUOTED.search(value):
            line[name] = _CONTROL.sub(lambda found: repr(found[0])[1:-1], value)
    return line


_HOST = socket.gethostname()


def _add_process(_: object, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add host, process id and version."""
    line.update(host=_HOST, pid=os.getpid(), version=__version__)
    return line


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
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # The text of a line is `message`. `event` means an event of the hub, which is passed as `_event`.
        structlog.processors.EventRenamer("message", "_event"),
    ]
    renderer: Any
    last: list[Any] = []
    if settings.log_format == "json":
        shared += [_add_process, structlog.processors.format_exc_info]
        renderer = structlog.processors.JSONRenderer()
    else:
        last.append(_on_one_line)
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            event_key="message",
            exception_formatter=structlog.dev.plain_traceback,  # Rich ones show local variables: secrets too
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
