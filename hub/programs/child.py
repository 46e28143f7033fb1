"""`python -m hub.programs.child dramatiq|periodiq ARGUMENTS`: their commands with the hub's logging.

Both log before they import the hub, and print a traceback when they fail. Here every line has the hub's format.
"""

from __future__ import annotations

import sys

import structlog

from hub.errors import HubError
from hub.programs.log_setup import configure_logging
from hub.settings import load_settings

log = structlog.get_logger("hub.programs.child")


def main() -> int:
    """Run the command that the first argument names; returns its exit code."""
    configure_logging(load_settings())
    command = sys.argv.pop(1)
    if command == "dramatiq":
        from dramatiq.cli import main as dramatiq

        return int(dramatiq() or 0)
    import periodiq

    try:
        return int(periodiq.main(periodiq.make_argument_parser().parse_args()) or 0)
    except HubError as e:
        log.error("scheduler stopped", error=str(e))
    except KeyboardInterrupt:
        log.info("scheduler interrupted")
    return 1


if __name__ == "__main__":
    sys.exit(main())
