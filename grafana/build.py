"""Writes the dashboards as JSON: `python -m grafana.build`; `--check` compares the committed files with the code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import dlq, overview, runbooks, runtime, service

FOLDER = Path(__file__).with_name("dashboards")


def documents() -> dict[str, str]:
    """Return file name -> JSON text of each dashboard."""
    boards = [module.build() for module in (overview, service, dlq, runtime, runbooks)]
    return {
        f"{board['uid']}.json": json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        for board in boards
    }


def main(check: bool = False) -> int:
    """Write the files, or compare them. Returns 1 when they differ."""
    made = documents()
    have = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    if check:
        return int(made != have)
    for name in have.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, document in made.items():
        (FOLDER / name).write_text(document)
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
