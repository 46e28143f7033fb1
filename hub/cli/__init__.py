"""`hub`, the command line. Each module is a group of commands. Imports are late, so that `--help` starts fast."""

from __future__ import annotations

from hub.cli.app import main

__all__ = ["main"]
