"""Build hook: names the commit in the wheel and the sdist, for `hub --version`.

The commit comes from `HUB_BUILD_COMMIT`, else from git. A wheel that is built from an sdist keeps the sdist's commit.
Without any of them the file is left out.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "_commit.txt"


class CommitHook(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore]
    """Writes `hub/_commit.txt` into what is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the file. An editable install has no need of it: the checkout's git answers."""
        if version == "editable":
            return
        root = Path(self.root)
        shipped = root / "hub" / NAME
        if shipped.exists():
            return  # an sdist: the file is part of the package
        if commit := os.environ.get("HUB_BUILD_COMMIT") or _git(root):
            made = Path(self.directory) / NAME
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_text(commit + "\n", "utf-8")
            build_data["force_include"][str(made)] = f"hub/{NAME}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the file from the output folder."""
        (Path(self.directory) / NAME).unlink(missing_ok=True)


def _git(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()[:12]
