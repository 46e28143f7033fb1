"""Where the deployment's files are, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def documents(path: Path) -> list[dict[str, Any]]:
    """Every YAML document of a file."""
    return [d for d in yaml.safe_load_all(path.read_text()) if d is not None]
