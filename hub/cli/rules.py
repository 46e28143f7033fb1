"""`hub rule`: which events go to which service, and as what."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hub.cli.common import (
    JsonFlag,
    Yes,
    confirm,
    open_hub,
    parse_json,
    read_text,
    said,
    show_object,
    show_rows,
    usage,
)
from hub.cli.fields import Fields, collect, spec

app = typer.Typer(no_args_is_help=True, help="Rules: event -> service.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="The rule's name.")]
EventName = Annotated[str | None, typer.Option("--event", help="Event name; * stands for anything.")]
ServiceName = Annotated[str | None, typer.Option("--service", "-s", help="The service it goes to.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="Path, routing key or operation.")]
Method = Annotated[str | None, typer.Option("--method", help="GET POST PUT PATCH DELETE HEAD.")]
Payload = Annotated[str | None, typer.Option("--payload", help="Template: JSON with {{placeholders}}, or @file.")]
Conditions = Annotated[str | None, typer.Option("--conditions", help="JSON conditions on the data, or @file.")]
_COLUMNS = ("id", "name", "event", "service", "method", "endpoint", "enabled")


@app.command("list")
def list_(service: ServiceName = None, as_json: JsonFlag = False) -> None:
    """All rules."""
    from hub.config.documents import rule_document

    with open_hub() as hub:
        rows = [
            {"id": r.id, **rule_document(r), "version": r.version}
            for r in hub.registry.rules()
            if service is None or r.service == service
        ]
    show_rows(
        rows, _COLUMNS, as_json=as_json, filters=(service,),
        empty="no rules yet; `hub rule add` or `hub apply FILE` makes one",
    )  # fmt: skip


@app.command()
def show(name: Name, as_json: JsonFlag = False) -> None:
    """One rule."""
    from hub.config.documents import rule_document

    with open_hub() as hub:
        r = hub.registry.rule(name)
        row = {"id": r.id, **rule_document(r), "version": r.version}
        row |= {"created_at": r.created_at, "updated_at": r.updated_at}
    show_object(row, as_json=as_json)


@app.command()
def add(
    name: Name,
    event: Annotated[str, typer.Option("--event", help="Event name; * stands for anything.")],
    service: Annotated[str, typer.Option("--service", "-s", help="The service it goes to.")],
    endpoint: Endpoint = None,
    method: Method = None,
    payload: Payload = None,
    conditions: Conditions = None,
    fields: Fields = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a rule."""
    from hub.config.definitions import RuleSpec

    given = _given(fields, payload, conditions, event=event, service=service, endpoint=endpoint, method=method)
    checked = spec(RuleSpec, {"name": name, **given})
    with open_hub() as hub:
        rule = hub.registry.add_rule(checked)
    said("rule", rule, "added", as_json=as_json)


@app.command()
def edit(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="Rename it.")] = None,
    event: EventName = None,
    service: ServiceName = None,
    endpoint: Endpoint = None,
    method: Method = None,
    payload: Payload = None,
    conditions: Conditions = None,
    fields: Fields = None,
    as_json: JsonFlag = False,
) -> None:
    """Change a rule; what is not named stays. An empty --payload sends the event's data."""
    given = _given(
        fields, payload, conditions, name=new_name, event=event, service=service, endpoint=endpoint, method=method
    )
    if not given:
        raise usage("nothing to change: name a field, `hub rule edit --help` shows them")
    with open_hub() as hub:
        rule = hub.registry.update_rule(name, given)
    said("rule", rule, "changed", as_json=as_json)


def _given(fields: list[str] | None, payload: str | None, conditions: str | None, **options: Any) -> dict[str, Any]:
    given = collect(fields, **options)
    if payload is not None:
        given["payload"] = read_text(payload) or None
    if conditions is not None:
        given["conditions"] = parse_json(read_text(conditions), "--conditions") if conditions else None
    return given


@app.command()
def enable(name: Name, as_json: JsonFlag = False) -> None:
    """Let it match again; what was held runs."""
    _enable(name, True, as_json)


@app.command()
def disable(name: Name, as_json: JsonFlag = False) -> None:
    """Hold its tasks. Events still make tasks, so that nothing is lost."""
    _enable(name, False, as_json)


def _enable(name: str, enabled: bool, as_json: bool) -> None:
    with open_hub() as hub:
        rule = hub.registry.rule(name)
        hub.registry.enable_rule(name, enabled)
    said("rule", rule, "enabled" if enabled else "disabled", as_json=as_json)


@app.command()
def delete(name: Name, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Delete a rule; its tasks become orphans."""
    with open_hub() as hub:
        rule = hub.registry.rule(name)
        confirm(f"Delete rule {name!r}?", yes=yes)
        hub.registry.delete_rule(name)
    said("rule", rule, "deleted", as_json=as_json)


@app.command()
def preview(
    name: Name,
    data: Annotated[str | None, typer.Option("--data", help="Event data: JSON or @file.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="Name of the event, where the rule has a *.")] = None,
    event_id: Annotated[str | None, typer.Option("--event-id", help="This event, as `hub emit` named it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What the rule would send for the latest real event of its name, or another. Sends nothing."""
    from hub.codec import loads
    from hub.domain import rules
    from hub.errors import DeliveryError, NotFoundError, PayloadError
    from hub.models import Event

    if event_id is not None and (data is not None or event is not None):
        raise usage("give either --event-id, or --data and --event")
    with open_hub() as hub:
        rule = hub.registry.rule(name)
        event_name = event or rule.event
        if data is not None:
            value, source = parse_json(read_text(data), "--data"), "--data"
        elif event_id is not None:
            stored = hub.views.event(event_id)
            event_name, value, source = stored["name"], loads(stored["data"]), f"event {event_id}"
        else:
            if "*" in event_name:
                names = [row["name"] for row in hub.views.event_names()]
                event_name = next((n for n in names if rules.matches(rule, Event(n, {}))), event_name)
            sample = hub.views.sample(event_name)
            if sample is None:
                raise NotFoundError(f"no event {event_name!r} was seen yet; give one with --data")
            value, source = loads(sample), "the latest event"
        try:
            body, endpoint = rules.preview(
                rule, event_name=event_name, event_data=value, event_id=event_id or "preview",
                now=hub.clock.now(), routing_key=hub.takes_routing_keys(rule.service),
            )  # fmt: skip
        except DeliveryError as e:
            raise PayloadError(f"the template gives no request: {e}") from None
        fits = rules.matches(rule, Event(event_name, value))
        row = {
            "rule": name, "event": event_name, "source": source, "matches": fits,
            "method": rule.method, "endpoint": endpoint, "body": loads(body) if body is not None else None,
        }  # fmt: skip
    show_object(row, as_json=as_json)
