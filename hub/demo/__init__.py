"""`hub demo`: everything the hub promises, shown live on its embedded default, and checked. Nothing is left behind.

`example.yaml` is what a user would write, `events.ndjson` what a Moodle would send, `target` the services at
the other end, `scenes` the story; `stage` puts them up and takes them down.
"""

from __future__ import annotations

from hub.demo.play import main

__all__ = ["main"]
