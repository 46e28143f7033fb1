"""Runbooks as a dashboard, for links of alerts when no wiki is set up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import text
from grafana_foundation_sdk.models.text import TextMode

from grafana.kit import SOURCE, board

FOLDER = Path(__file__).parents[1] / "deploy" / "runbooks"


def build() -> dict[str, Any]:
    """Return the dashboard: one panel per alert, two in a row."""
    panels = []
    for path in sorted(FOLDER.glob("*.md")):
        heading, _, body = path.read_text().partition("\n")
        panels.append(
            text.Panel()
            .title(heading.removeprefix("# "))
            .description(f"The runbook of the alert {path.stem}.")
            .datasource(SOURCE)
            .mode(TextMode.MARKDOWN)
            .content(body.strip().replace("$", "&#36;"))  # else Grafana looks for variables
        )
    pairs = [panels[i : i + 2] for i in range(0, len(panels), 2)]
    rows = [(16, [(24 // len(pair), panel) for panel in pair]) for pair in pairs]  # an odd last one gets the whole row
    what = "What each alert means, how to look, how to fix, how to silence."
    return board("hub-runbooks", "Hub / Runbooks", what, rows, live=False)
