"""`hub rule`: which events are sent to which service, and as which request."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hub.cli.backfills import backfill
from hub.cli.common import JsonFlag, Yes, confirm, open_hub, open_records, parse_json, read_text, usage
from hub.cli.fields import Fields, collect, spec
from hub.cli.output import said, show_object, show_rows

app = typer.Typer(no_args_is_help=True, help="Rules: which events go to which service.", rich_markup_mode=None)
app.command()(backfill)
Name = Annotated[str, typer.Argument(help="Name of a rule.")]
EventName = Annotated[str | None, typer.Option("--event", help="Event name; * matches any text.")]
ServiceName = Annotated[str | None, typer.Option("--service", "-s", help="Target service.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="Path, routing key or operation.")]
Method = Annotated[str | None, typer.Option("--method", help="GET POST PUT PATCH DELETE HEAD.")]
Payload = Annotated[str | None, typer.Option("--payload", help="Template: JSON with {{placeholders}}, or @FILE.")]
Conditions = Annotated[str | None, typer.Option("--conditions", help="JSON conditions on the data, or @FILE.")]
_COLUMNS = ("id", "name", "event", "service", "method", "endpoint", "enabled")


@app.command("list")
def list_(service: ServiceName = None, as_json: JsonFlag = False) -> None:
    """List rules."""
    from hub.config.documents import rule_document

    with open_records() as hub:
        rows = [
            {"id": r.id, **rule_document(r), "version": r.version}
            for r in hub.configuration.rules()
            if service is None or r.service == service
        ]
    show_rows(
        rows,
        _COLUMNS,
        as_json=as_json,
        filters=(service,),
        empty="no rules yet; add one with `hub rule add` or `hub apply FILE`",
    )


@app.command()
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show a rule."""
    from hub.config.documents import rule_document

    with open_records() as hub:
        r = hub.configuration.rule(name)
        row = {"id": r.id, **rule_document(r), "version": r.version}
        row |= {"created_at": r.created_at, "updated_at": r.updated_at}
    show_object(row, as_json=as_json)


@app.command()
def add(
    name: Name,
    event: Annotated[str, typer.Option("--event", help="Event name; * matches any text.")],
    service: Annotated[str, typer.Option("--service", "-s", help="Target service.")],
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
        rule = hub.registry.rules.add(checked)
    said("rule", rule, "added", as_json=as_json)


@app.command()
def edit(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="New name.")] = None,
    event: EventName = None,
    service: ServiceName = None,
    endpoint: Endpoint = None,
    method: Method = None,
    payload: Payload = None,
    conditions: Conditions = None,
    fields: Fields = None,
    as_json: JsonFlag = False,
) -> None:
    """Change a rule. Other fields stay unchanged. An empty --payload sends the data of the event."""
    given = _given(
        fields, payload, conditions, name=new_name, event=event, service=service, endpoint=endpoint, method=method
    )
    if not given:
        raise usage("nothing to change: give a field, see `hub rule edit --help`")
    with open_hub() as hub:
        rule = hub.registry.rules.update(name, given)
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
    """Enable a rule. Its held tasks become due."""
    _enable(name, True, as_json)


@app.command()
def disable(name: Name, as_json: JsonFlag = False) -> None:
    """Disable a rule. Its tasks are held; events still create tasks, so that nothing is lost."""
    _enable(name, False, as_json)


def _enable(name: str, enabled: bool, as_json: bool) -> None:
    with open_hub() as hub:
        rule = hub.configuration.rule(name)
        hub.registry.rules.enable(name, enabled)
    said("rule", rule, "enabled" if enabled else "disabled", as_json=as_json)


@app.command()
def delete(name: Name, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Delete a rule. Its tasks become orphans."""
    with open_hub() as hub:
        rule = hub.configuration.rule(name)
        confirm(f"Delete rule {name!r}?", yes=yes)
        hub.registry.rules.delete(name)
    said("rule", rule, "deleted", as_json=as_json)


@app.command()
def preview(
    name: Name,
    data: Annotated[str | None, typer.Option("--data", help="Event data: JSON, or @FILE.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="Name of the event, for a rule with *.")] = None,
    event_id: Annotated[str | None, typer.Option("--event-id", help="Id of a stored event.")] = None,
    last: Annotated[
        int | None, typer.Option("--last", min=1, max=1000, help="Try it on so many latest events.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the request of a rule for the latest event that it matches, or for another. Nothing is sent.

    With --last: what the rule would have done with the latest events, enabled or not.
    """
    if last is not None:
        if data is not None or event is not None or event_id is not None:
            raise usage("give either --last, or --data, --event or --event-id")
        _try(name, last, as_json=as_json)
        return
    from hub.codec import loads
    from hub.errors import NotFoundError, PayloadError
    from hub.models import Event
    from hub.operations import preview as operation

    if event_id is not None and (data is not None or event is not None):
        raise usage("give either --event-id, or --data and --event")
    with open_hub() as hub:
        rule = hub.configuration.rule(name)
        if data is not None:
            tried, source = Event(event or rule.event, parse_json(read_text(data), "--data"), source="cli"), "--data"
        elif event_id is not None:
            stored = hub.views.events.get(event_id)
            tried, source = Event(stored["name"], loads(stored["data"]), source=operation.REAL), f"event {event_id}"
        else:
            latest = operation.latest_event(hub, event or rule.event)
            if latest is None:
                raise NotFoundError(f"no event {event or rule.event!r} was accepted yet; give one with --data")
            tried, source = latest, "the latest event"
        found = operation.preview(hub, rule, tried, event_id=event_id or "preview")
    if found.error is not None:
        raise PayloadError(f"no request can be made: {found.error}")
    row = {
        "rule": name,
        "event": tried.name,
        "source": source,
        "matches": found.matches,
        "method": rule.method,
        "endpoint": found.endpoint,
        "body": None if found.body is None else loads(found.body),
    }
    show_object(row, as_json=as_json)


def _try(name: str, last: int, *, as_json: bool) -> None:
    from dataclasses import asdict

    from hub.operations.trial import trial

    with open_hub() as hub:
        found = trial(hub, hub.configuration.rule(name), last)
    errors = [{"error": error, "events": events} for error, events in found.errors]
    show_object({"rule": name} | asdict(found) | {"errors": errors}, as_json=as_json)
