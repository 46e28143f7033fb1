"""The whole story of one event: rules, tasks, deliveries, dead letters, responses, and the events it caused."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hub.codec import readable
from hub.domain.rule_reasons import explain
from hub.models import JSON, Event, Rule
from hub.store.database import Database, Row
from hub.store.views.dead_letters import DeadLetterViews
from hub.store.views.deliveries import DeliveryViews
from hub.store.views.event_log import EventLog
from hub.store.views.masks import RowMasks
from hub.store.views.tasks import TaskViews

# Rules of today, and those of before that made a task of the event.
_RULES = """
SELECT r.id, r.name, r.event, r.conditions, r.enabled, s.enabled AS service_enabled, s.name AS service, r.created_at,
       r.updated_at, r.deleted_at
FROM rules r JOIN services s ON s.id = r.service_id WHERE r.deleted_at IS NULL OR r.id = ANY(%s)
ORDER BY r.name, r.id
"""
_RULES_OF_TASKS = """
SELECT id AS task_id, rule_id FROM tasks WHERE event_id = %(id)s
UNION SELECT task_id, rule_id FROM deliveries WHERE event_id = %(id)s AND task_id IS NOT NULL
UNION SELECT task_id, rule_id FROM dead_letters WHERE event_id = %(id)s
UNION SELECT task_id, rule_id FROM cancellations WHERE event_id = %(id)s AND task_id IS NOT NULL
ORDER BY task_id
"""
_CANCELLED = """
SELECT c.task_id, c.created_at, c.reason, c.who, r.name AS rule, s.name AS service
FROM cancellations c LEFT JOIN rules r ON r.id = c.rule_id LEFT JOIN services s ON s.id = c.service_id
WHERE c.event_id = %s AND c.task_id IS NOT NULL ORDER BY c.id
"""
_CAUSED = "SELECT id FROM events WHERE cause_task_id = ANY(%s) ORDER BY id DESC LIMIT 200"
_MOST_RULES = 200  # rules that do not match and are shown all the same


class EventStories:
    """Reads stories."""

    def __init__(
        self,
        db: Database,
        masks: RowMasks,
        log: EventLog,
        tasks: TaskViews,
        deliveries: DeliveryViews,
        dead_letters: DeadLetterViews,
    ) -> None:
        self._db = db
        self._masks = masks
        self._log = log
        self._tasks = tasks
        self._deliveries = deliveries
        self._dead_letters = dead_letters

    def get(self, number: int) -> Row:
        """The event of this number, and what became of it; raises `NotFoundError`.

        Beside the columns of `EventLog.list`: `data` (its JSON value, masked), `rules`, `tasks`, `deliveries`,
        `responses` (messages and webhook calls that answer to its tasks), `dead_letters`, `caused` (events) and
        `caused_by` (the event whose task this one answers to, or None).
        """
        event = self._log.unmasked(number)
        hide = self._masks.of_event(event["name"])
        shown = readable(hide(event["data"]))
        made = self._db.all(_RULES_OF_TASKS, {"id": number})
        task_ids = sorted({row["task_id"] for row in made})
        deliveries = self._deliveries.of_event(number)
        letters = self._dead_letters.of_event(number)
        caused = self._log.many([row["id"] for row in self._db.all(_CAUSED, [task_ids])]) if task_ids else []
        return event | {
            "data": shown,
            "rules": self._rules(event, shown, made),
            "tasks": self._all_tasks(number, deliveries, letters),
            "deliveries": deliveries,
            "responses": self._deliveries.responses(task_ids),
            "dead_letters": letters,
            "caused": caused[::-1],
            "caused_by": self._caused_by(event["cause_task_id"]),
        }

    def _rules(self, event: Row, shown: JSON, made: list[Row]) -> list[Row]:
        """Every rule, those that match first: whether it matches as it is now, why, and the tasks it made."""
        tasks: dict[int, list[int]] = {}
        for row in made:
            tasks.setdefault(row["rule_id"], []).append(row["task_id"])
        given = Event(event["name"], readable(event["data"]))
        rows = []
        for rule in self._db.all(_RULES, [list(tasks)]):
            reason = explain(
                Rule(rule["id"], rule["name"], rule["event"], 0, "", conditions=rule["conditions"]), given, shown
            )
            rows.append(
                {
                    "rule": rule["name"],
                    "service": rule["service"],
                    "matched": reason.matched,
                    "reason": reason.text,
                    "rule_is": _since(rule, event["created_at"]),
                    "enabled": rule["enabled"] and rule["service_enabled"],
                    "tasks": tasks.get(rule["id"], []),
                }
            )
        matching = [row for row in rows if row["matched"] or row["tasks"]]
        named = [row for row in rows if row not in matching and not row["reason"].startswith("the event's name")]
        others = [row for row in rows if row not in matching and row not in named]
        return (matching + named + others)[: len(matching) + _MOST_RULES]

    def _all_tasks(self, number: int, deliveries: list[Row], letters: list[Row]) -> list[Row]:
        """Live tasks with what each waits for, and those that have ended: oldest first."""
        found: dict[int, Row] = {}
        for d in deliveries:
            if d["task_id"] is None:
                continue
            task = found.setdefault(d["task_id"], _ended(d["task_id"], d["rule"], d["service"]))
            task["attempts"] = max(task["attempts"], d["attempt"] or 0)
            task["last_error"] = d["error"]
            if d["success"]:
                task |= {"state": "delivered", "ended_at": d["created_at"]}
        for c in self._db.all(_CANCELLED, [number]):
            task = found.setdefault(c["task_id"], _ended(c["task_id"], c["rule"], c["service"]))
            if task["state"] != "delivered":
                why = f"{c['reason']} by {c['who']}" if c["who"] else c["reason"]
                task |= {"state": "cancelled", "ended_at": c["created_at"], "last_error": why}
        for letter in letters:
            found[letter["task_id"]] = _ended(letter["task_id"], letter["rule"], letter["service"]) | {
                "state": "dead",
                "ended_at": letter["created_at"],
                "attempts": letter["attempts"],
                "last_error": letter["error"],
                "dead_letter_id": letter["id"],
            }
        for live in self._tasks.of_event(number):
            found[live["id"]] = _ended(live["id"], live["rule"], live["service"]) | {name: live[name] for name in _LIVE}
        return [found[task_id] for task_id in sorted(found)]

    def _caused_by(self, task_id: int | None) -> Row | None:
        if task_id is None:
            return None
        numbers = self._log.find_all(f"task:{task_id}")
        events = self._log.many(numbers)
        return {"task_id": task_id, "number": events[0]["number"], "id": events[0]["id"]} if events else None


_LIVE = ("state", "attempts", "next_run_at", "waits_for", "waits_until", "last_error")


def _ended(task_id: int, rule: str | None, service: str | None) -> dict[str, Any]:
    return {
        "id": task_id,
        "rule": rule,
        "service": service,
        "state": "replayed",
        "attempts": 0,
        "next_run_at": None,
        "waits_for": None,
        "waits_until": None,
        "ended_at": None,
        "last_error": None,
        "dead_letter_id": None,
    }


def _since(rule: Row, accepted: datetime) -> str:
    """What happened to the rule since the event was accepted: unchanged, changed, added or deleted."""
    if rule["deleted_at"] is not None:
        return "deleted"
    if rule["created_at"] > accepted:
        return "added"
    return "changed" if rule["updated_at"] > accepted else "unchanged"
