"""The README's part on the API is held true by the API."""

from __future__ import annotations

import re
from pathlib import Path

from hub.app.lifecycle import build
from hub.settings import Settings
from hub.web.server import make_app

_README = Path(__file__).parents[2].joinpath("README.md").read_text("utf-8")


def test_every_path_in_the_readme_exists_and_every_collection_is_named(settings: Settings) -> None:
    """A path that is gone, or one that nobody was told of, is found here."""
    with build(settings, role="web") as hub:
        paths = set(make_app(hub).openapi()["paths"])
    section = _README.split("\n## HTTP API\n")[1].split("\n## ")[0]
    shown = set(re.findall(r"/(?:api/v1|webhook|healthz|readyz|metrics)[\w/{}-]*", section))
    assert {path.rstrip("/") for path in shown} - {"/api/v1"} <= paths
    collections = {path.split("/")[3] for path in paths if path.startswith("/api/v1/")}
    assert collections <= set(re.findall(r"[\w-]+", section))
