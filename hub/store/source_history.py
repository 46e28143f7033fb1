"""Which events of a source a rule has had before, so that a replay makes no second task for them."""

from __future__ import annotations

from collections.abc import Sequence

from hub.store.database import Database

_HAD = """
SELECT DISTINCT e.uid FROM events e
WHERE e.uid = ANY(%(uids)s) AND (
    EXISTS (SELECT FROM tasks t WHERE t.event_id = e.id AND t.rule_id = %(rule)s)
    OR EXISTS (SELECT FROM deliveries d WHERE d.event_id = e.id AND d.rule_id = %(rule)s)
    OR EXISTS (SELECT FROM dead_letters l WHERE l.event_id = e.id AND l.rule_id = %(rule)s)
    OR EXISTS (SELECT FROM cancellations c WHERE c.event_id = e.id AND c.rule_id = %(rule)s))
"""


def had_task(db: Database, uids: Sequence[str], rule_id: int) -> set[str]:
    """Those of the event ids for which the rule has or had a task, as far as the log goes back."""
    return {row["uid"] for row in db.all(_HAD, {"uids": list(uids), "rule": rule_id})}
