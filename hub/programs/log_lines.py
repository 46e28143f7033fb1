"""Log lines: rendered as JSON or text, and written to stderr in one call each.

A worker's `sys.stderr` is a pipe to Dramatiq's parent process, which decodes each line and writes it again. Lines go to
file descriptor 2 directly.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from hub import __version__

Line = MutableMapping[str, Any]
_HOST = socket.gethostname()
# Characters that move a terminal's cursor, start a line or reverse the text direction.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_QUOTED = re.compile("""[ \t=\r\n"']""")  # a value with one of these is written in quotes
_TRACES = ("exception", "stack")
_LEVEL_WIDTH, _MESSAGE_WIDTH = 9, 30
_encode = json.JSONEncoder(default=repr).encode


_descriptor = 2


@contextmanager
def redirected(descriptor: int) -> Iterator[None]:
    """Write lines to this file descriptor inside the block, in every thread."""
    global _descriptor
    before, _descriptor = _descriptor, descriptor
    try:
        yield
    finally:
        _descriptor = before


def write(line: str) -> None:
    """Write a line to stderr. One that cannot be written is dropped: nothing could report it."""
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    try:
        while data:
            data = data[os.write(_descriptor, data) :]
    except OSError:
        pass


class StderrLogger:
    """The last step of structlog: writes rendered lines.

    Args:
        name: of the logger.
    """

    def __init__(self, name: str = "hub") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line."""
        write(line)

    debug = info = warning = error = critical = msg


class StderrHandler(logging.Handler):
    """Writes the records of libraries that use `logging`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write(self.format(record))
        except Exception:
            self.handleError(record)


def as_json(_: object, __: str, line: Line) -> str:
    """Render one JSON object, with host, process id and version."""
    line["host"], line["pid"], line["version"] = _HOST, os.getpid(), __version__
    return _encode(line)


def as_text(_: object, __: str, line: Line) -> str:
    """Render one line of text: time, level, message, logger, then the values by name."""
    start = f"{line.pop('timestamp', '')} [{line.pop('level', ''):<{_LEVEL_WIDTH}}]"
    message, logger = escape(str(line.pop("message", ""))), line.pop("logger", "")
    traces = [str(line.pop(name)) for name in _TRACES if name in line]
    values = [f"{name}={_value(line[name])}" for name in sorted(line)]
    return "\n".join([" ".join([start, message.ljust(_MESSAGE_WIDTH), f"[{logger}]", *values]), *traces])


def escape_values(_: object, __: str, line: Line) -> Line:
    """Escape control characters for a renderer that does not."""
    for name, value in line.items():
        if isinstance(value, str) and name not in _TRACES and (name == "message" or not _QUOTED.search(value)):
            line[name] = escape(value)
    return line


def escape(text: str) -> str:
    """Escape control characters: a value from outside must not forge a line or control the reader's terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text) if _CONTROL.search(text) else text


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text) if isinstance(value, str) and _QUOTED.search(text) else escape(text)
