"""Send again what was sent before: a delivery, all deliveries that match, or an event.

A resend is a new task of the same event and rule with its own idempotency key and five attempts; what it came from is
recorded. One resend may replace the payload or the endpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from hub.app.lifecycle import Hub
from hub.codec import dumps, loads
from hub.domain import rules
from hub.domain.text import MASK
from hub.errors import ConflictError, InvalidPayloadError, NotFoundError, PayloadError, TooLargeError
from hub.models import JSON, Event, Rule, ServiceType
from hub.store.resends import Candidate, Edit, Made, Matching, Problem
from hub.transports.http.urls import check_endpoint

__all__ = ["Edit", "Matching", "Outcome", "resend", "resend_event", "resend_matching", "would_resend"]
BATCH = 500  # deliveries of one transaction
_MANY = 100  # deliveries chosen by id; more of them wait in the bulk lane
_LONGEST = 8192  # characters of an endpoint
_WHY: dict[Problem, str] = {
    "no_task": "delivery {} is not an attempt of a task: an inbound message or a direct request cannot be sent again",
    "rule_deleted": "delivery {} cannot be sent again: its rule or service was deleted",
    "event_gone": "delivery {} cannot be sent again: its event is no longer stored",
    "erased": "delivery {} cannot be sent again: the data of its event was erased",
    "live": "delivery {} cannot be sent again: its task {} is still live; `hub tasks run --id {}` runs it now",
}


@dataclass(slots=True)
class Outcome:
    """What a resend did, or would do.

    `tasks`: the new tasks. `count`: how many deliveries were sent again, or would be: of several attempts of one
    event and rule, one. `skipped`: how many were left out, by reason. `up_to`: the newest delivery at the start; pass
    it on to send exactly what was counted.
    """

    tasks: list[int] = field(default_factory=list)
    count: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    up_to: int = 0


def resend(hub: Hub, ids: Sequence[int], *, payload: JSON = ..., endpoint: str | None = None) -> Outcome:
    """Send these deliveries again, or none of them.

    Args:
        payload: JSON value to send in place of the rule's; only for one delivery. `...`: what the rule makes.
        endpoint: as `payload`; None: what the rule makes.

    Raises:
        NotFoundError: no such delivery.
        ConflictError: one cannot be sent again; the text says why.
        PayloadError: the payload or endpoint cannot be sent.
    """
    wanted = list(dict.fromkeys(ids))
    found = hub.resends.of_ids(wanted)
    if missing := sorted(set(wanted) - {c.delivery_id for c in found}):
        raise NotFoundError(f"no delivery {missing[0]}; `hub log list` shows what there is")
    for candidate in found:
        if candidate.problem is not None:
            raise ConflictError(
                _WHY[candidate.problem].format(candidate.delivery_id, candidate.task_id, candidate.task_id)
            )
    edit = Edit()
    if payload is not ... or endpoint is not None:
        if len(found) != 1:
            raise PayloadError("payload and endpoint can be replaced in one resend at a time")
        assert found[0].rule_id is not None
        edit = _edit(hub, _rule(hub, found[0].rule_id), payload, endpoint)
    latest = list(_latest(found).values())
    made: list[Made] = []
    for start in range(0, len(latest), BATCH):
        made += hub.resends.resend(latest[start : start + BATCH], edit, bulk=len(latest) > _MANY)
    return Outcome([m.task_id for m in made], len(made))


def would_resend(hub: Hub, wanted: Matching) -> Outcome:
    """Count what `resend_matching` would send; pass `up_to` on to send exactly that."""
    wanted = _bounded(hub, wanted)
    outcome = Outcome(up_to=wanted.up_to or 0)
    for some in _walk(hub, wanted, outcome):
        outcome.count += len(some)
    return outcome


def resend_matching(hub: Hub, wanted: Matching, *, told: Callable[[int], None] = lambda count: None) -> Outcome:
    """Send all deliveries again that match and exist now, in batches; they wait in the bulk lane.

    Args:
        told: called after each batch with the number of deliveries sent again so far.

    Raises:
        NotFoundError: no such service.
    """
    wanted = _bounded(hub, wanted)
    outcome = Outcome(up_to=wanted.up_to or 0)
    for some in _walk(hub, wanted, outcome):
        made = hub.resends.resend(some, Edit(), bulk=True)
        outcome.tasks += [m.task_id for m in made]
        outcome.count = len(outcome.tasks)
        told(outcome.count)
    return outcome


def resend_event(
    hub: Hub, event_id: str, names: Sequence[str] = (), *, payload: JSON = ..., endpoint: str | None = None
) -> Outcome:
    """Send an event again: a new task for each rule.

    Args:
        event_id: the id that the event was accepted with, or another that leads to it, such as `task:7`.
        names: of rules; none: all enabled rules that match the event.
        payload, endpoint: as for `resend`; only for one rule.

    Raises:
        NotFoundError: no such event or rule.
        ConflictError: its data was erased, or no rule matches it, or a named one does not.
        PayloadError: the payload or endpoint cannot be sent.
    """
    stored = hub.resends.event(hub.views.event_log.find(event_id))
    if stored.erased:
        raise ConflictError(f"event {event_id} cannot be sent again: its data was erased")
    event = Event(stored.name, loads(stored.data))
    chosen = [hub.configuration.rule(name) for name in dict.fromkeys(names)]
    for rule in chosen:
        if not rules.matches(rule, event):
            raise ConflictError(f"rule {rule.name!r} does not match event {event_id}")
    if not names:
        chosen = [rule for rule in hub.configuration.rules() if rule.enabled and rules.matches(rule, event)]
        if not chosen:
            raise ConflictError(f"no enabled rule matches event {event_id}")
    edit = Edit()
    if payload is not ... or endpoint is not None:
        if len(chosen) != 1:
            raise PayloadError("payload and endpoint can be replaced for one rule at a time; name the rule")
        edit = _edit(hub, chosen[0], payload, endpoint)
    made = hub.resends.resend_event(stored, [(rule.id, rule.name) for rule in chosen], edit)
    return Outcome([m.task_id for m in made], len(made))


def _bounded(hub: Hub, wanted: Matching) -> Matching:
    return wanted if wanted.up_to is not None else replace(wanted, up_to=hub.resends.newest())


def _walk(hub: Hub, wanted: Matching, outcome: Outcome) -> Iterator[list[Candidate]]:
    """Batches of deliveries to send, each event and rule once; counts in `outcome` what is left out."""
    after = hub.views.deliveries.first_id_since(wanted.since) - 1 if wanted.since is not None else 0
    seen: set[tuple[int | None, int | None]] = set()
    while found := hub.resends.matching(wanted, after=after, limit=BATCH):
        after = found[-1].delivery_id
        batch: list[Candidate] = []
        for key, candidate in _latest(found).items():
            if key in seen:
                continue
            seen.add(key)
            if candidate.problem is None:
                batch.append(candidate)
            else:
                outcome.skipped[candidate.problem] = outcome.skipped.get(candidate.problem, 0) + 1
        if batch:
            yield batch


def _latest(found: Sequence[Candidate]) -> dict[tuple[int | None, int | None], Candidate]:
    """The latest attempt of each event and rule."""
    return {(c.event_id, c.rule_id): c for c in found}


def _rule(hub: Hub, rule_id: int) -> Rule:
    rule = hub.configuration.rule_by_id(rule_id)
    if rule is None:
        raise NotFoundError("its rule was deleted")
    return rule


def _edit(hub: Hub, rule: Rule, payload: JSON, endpoint: str | None) -> Edit:
    """What is sent in place of what the rule makes; raises `PayloadError`."""
    return Edit(
        None if payload is ... else _payload(hub, rule, payload),
        None if endpoint is None else _endpoint(hub, rule, endpoint),
    )


def _payload(hub: Hub, rule: Rule, payload: JSON) -> str:
    if rule.method in rules.BODYLESS:
        raise PayloadError(f"payload: rule {rule.name!r} sends {rule.method}, which has no payload")
    text = dumps(payload)
    if MASK in text:
        raise PayloadError("payload: holds ***, which stands for a masked value; write the value itself")
    limit = max(hub.settings.payload_limit, hub.settings.event_limit)
    if len(text.encode()) > limit:
        raise TooLargeError(f"payload: {len(text.encode())} bytes are more than the limit of {limit}")
    return text


def _endpoint(hub: Hub, rule: Rule, endpoint: str) -> str:
    if MASK in endpoint:
        raise PayloadError("endpoint: holds ***, which stands for a masked value; write the value itself")
    if "{{" in endpoint:
        raise PayloadError("endpoint: placeholders are not filled in here; write the value itself")
    if len(endpoint) > _LONGEST or not endpoint.isprintable():
        raise PayloadError(f"endpoint: must have at most {_LONGEST} printable characters")
    service = hub.configuration.service(rule.service)
    if service.type is ServiceType.REST:
        try:
            check_endpoint(service.base_url, endpoint)
        except InvalidPayloadError as e:
            raise PayloadError(f"endpoint: {e}") from None
    return endpoint
