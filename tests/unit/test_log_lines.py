"""Log lines as text: one line each, whatever values come from outside; a closed stderr stops nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hub.programs.log_lines import as_json, as_text, write

PROGRAM = """
import os, sys
from hub.programs.log_setup import configure_logging
from hub.settings import Settings
import structlog, logging
configure_logging(Settings(log_format=sys.argv[1]))
log = structlog.get_logger("hub.test")
log.debug("hidden")
log.info("delivered", task=1, _event="e", text="two words")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
logging.getLogger("library").warning("old %s", "style")
os.close(2)
log.info("nobody reads this")
print("alive")
"""


def lines(form: str) -> list[str]:
    """What a process writes to stderr in a format; it must survive the loss of stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "alive\n"
    return done.stderr.splitlines()


def test_json_has_one_object_a_line_with_exceptions_and_lines_of_libraries() -> None:
    delivered, failed, old = map(json.loads, lines("json"))
    assert delivered["message"] == "delivered" and delivered["event"] == "e" and delivered["logger"] == "hub.test"
    assert failed["exception"].endswith("ZeroDivisionError: division by zero") and failed["level"] == "error"
    assert old["message"] == "old style" and old["logger"] == "library" and old["pid"] == delivered["pid"]


def test_text_has_values_by_name_and_a_traceback_below() -> None:
    delivered, failed, *trace = lines("console")
    assert delivered.endswith("[hub.test] event=e task=1 text='two words'") and " [info     ] delivered  " in delivered
    assert "[error    ] failed" in failed and trace[0].startswith("Traceback") and "old style" in trace[-1]


@pytest.mark.parametrize("evil", ["a\nforged", "a\r[info] b", "\x1b[2J", "\u202egnp", "a\u2028b", "tab\t'"])
def test_a_value_from_outside_stays_within_its_line(evil: str) -> None:
    for line in ({"message": evil}, {"message": "m", "error": evil}, {"message": "m", "error": [evil]}):
        text = as_text(None, "", {"timestamp": "t", "level": "info", "logger": "hub", **line})
        assert len(text.splitlines()) == 1 and "\x1b" not in text and "\u202e" not in text
        assert len(as_json(None, "", dict(line)).splitlines()) == 1


def test_a_line_longer_than_a_pipe_is_written_whole(capfd: pytest.CaptureFixture[str]) -> None:
    write("x" * 200_000)
    assert capfd.readouterr().err == "x" * 200_000 + "\n"
    assert os.fstat(2)
