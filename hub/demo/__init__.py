"""`hub demo`: everything the hub promises, shown live on its embedded default, and checked. Nothing is left behind.

`example.yaml` is what a user would write, `events.ndjson` what a Moodle would send, `target` the services at
the other end, `scenes` the story; `stage` puts them up and takes them down.
"""

from __future__ import annotations


def main(as_json: bool, *, broker: str | None = None) -> int:
    """Run the demo; see `hub.demo.play.main`."""
    from hub.demo.play import main  # late: `python -m hub.demo.target` needs none of it

    return main(as_json, broker=broker)
