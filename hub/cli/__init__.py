"""`hub`: the command line. Each module here is one group of commands; imports are late, so `--help` is quick."""

from __future__ import annotations

from hub.cli.app import main

__all__ = ["main"]
