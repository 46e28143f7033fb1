"""`hub demo`: shows and checks what the hub promises, on a temporary embedded hub that is removed at the end.

`example.yaml` has the services and rules, `events.ndjson` the events of a Moodle, `target` the services. `scenarios`
sends the events and checks the results; `environment` starts and stops everything.
"""

from __future__ import annotations


def main(as_json: bool, *, broker: str | None = None) -> int:
    """Run the demo; see `hub.demo.program.main`."""
    from hub.demo.program import main  # late: `python -m hub.demo.target` needs none of it

    return main(as_json, broker=broker)
