"""Sources of a Moodle site and their readers, for tests."""

from __future__ import annotations

from typing import Any

from hub.app.lifecycle import Hub
from hub.app.sources import make_poller
from hub.inbound.moodle_poll import MoodlePoller
from hub.models import Source
from hub.store.source_positions import SourcePositions
from tests.support.hubs import add_rule, add_service, add_source
from tests.support.moodle_site import MoodleSite


def source_of(hub: Hub, site: MoodleSite, **fields: Any) -> Source:
    """A source from the first row on, and a rule that takes every event."""
    if not hub.configuration.rules():
        add_service(hub, "http://127.0.0.1:9")
        add_rule(hub, event="*")
    return add_source(hub, fields.pop("url", site.url), fields.pop("name", "site"), **{"start": 0} | fields)


def poller(hub: Hub, source: Source, owner: str = "here") -> MoodlePoller:
    """A poller of its own connection and lease."""
    made, close = make_poller(hub, source, SourcePositions(hub.db, source.id, owner))
    hub.on_close(close)
    return made


def drain(reader: MoodlePoller) -> None:
    """Look until nothing is left to read."""
    while (outcome := reader.look()) != "idle":
        assert outcome == "more"


def read_ids(hub: Hub) -> list[int]:
    """Ids of the log rows in the ledger, in the order in which they were written."""
    return [int(row["uid"].split(":")[1]) for row in hub.db.all("SELECT uid FROM events ORDER BY id")]


def all_ids(site: MoodleSite) -> list[int]:
    return [id_ for (id_,) in site.run("SELECT id FROM mdl_logstore_standard_log ORDER BY id")]
