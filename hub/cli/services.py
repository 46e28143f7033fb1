"""`hub service`: external systems."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hub.cli.common import JsonFlag, Yes, confirm, open_hub, open_records, usage
from hub.cli.fields import (
    Fields,
    collect,
    keep_others,
    spec,
)
from hub.cli.output import cell, err, print_json, said, show_object, show_rows

if TYPE_CHECKING:
    from hub.operations.services import Saved

app = typer.Typer(no_args_is_help=True, help="External systems: REST, AMQP, SOAP, SMTP.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument(help="Name of a service.")]
_COLUMNS = ("id", "name", "type", "base_url", "enabled", "breaker", "pending", "timeout", "max_retries")
_UNREADABLE = "secrets_unreadable"


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List services."""
    from hub.config.documents import service_document

    with open_records() as hub:
        circuits = {row["service"]: row["state"] for row in hub.views.overview.breakers()}
        waiting = hub.views.overview.stats()["services"]
        rows = [
            {
                "id": s.id,
                **service_document(s),
                "breaker": circuits.get(s.name, "closed"),
                "pending": waiting.get(s.name, {}).get("pending", 0),
                _UNREADABLE: s.secrets_unreadable,
                "version": s.version,
            }
            for s in hub.configuration.services()
        ]
    columns = (*_COLUMNS, _UNREADABLE) if any(row[_UNREADABLE] for row in rows) else _COLUMNS
    show_rows(rows, columns, as_json=as_json, empty="no services yet; `hub service add` adds one")


@app.command()
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show a service, with secrets masked."""
    from hub.config.documents import service_document

    with open_records() as hub:
        s = hub.configuration.service(name)
        row: dict[str, Any] = {
            "id": s.id,
            **service_document(s),
            _UNREADABLE: s.secrets_unreadable,
            "version": s.version,
        }
        row |= {"created_at": s.created_at, "updated_at": s.updated_at}
    show_object(row, as_json=as_json)


def _changes(given: dict[str, Any], token: str | None, auth: str | None) -> dict[str, Any]:
    if token is not None or auth is not None:
        known = given.get("auth") or {}
        if not isinstance(known, dict):
            raise usage("--set auth: give an object, or single fields as auth.KEY=VALUE")
        merged = dict(known)
        if auth is not None:
            merged["type"] = auth
        elif token is not None and "type" not in merged:
            merged["type"] = "bearer"
        if token is not None:
            merged["token"] = token
        given["auth"] = merged
    return given


Type = Annotated[str | None, typer.Option("--type", help="rest, amqp, soap or smtp.")]
Url = Annotated[str | None, typer.Option("--base-url", "--url", help="Base URL; for SOAP the URL of the WSDL.")]
Auth = Annotated[str | None, typer.Option("--auth", help="none, bearer, apikey, basic or oauth2.")]
Token = Annotated[str | None, typer.Option("--token", help="Bearer token or API key: @FILE, or env:NAME.")]
Timeout = Annotated[float | None, typer.Option("--timeout", help="Seconds per try.")]
Tries = Annotated[int | None, typer.Option("--max-retries", help="Tries within one attempt, the first included.")]
Queue = Annotated[str | None, typer.Option("--response-queue", help="AMQP: queue of the responses.")]


def _said(saved: Saved, done: str, *, as_json: bool) -> None:
    said("service", saved.service, done, as_json=as_json)
    if saved.note:
        err.print(f"note: {saved.note}", markup=False)


@app.command()
def add(
    name: Name,
    type_: Type = None,
    base_url: Url = None,
    auth: Auth = None,
    token: Token = None,
    timeout: Timeout = None,
    max_retries: Tries = None,
    response_queue: Queue = None,
    fields: Fields = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a service."""
    from hub.config.definitions import ServiceSpec
    from hub.operations.services import add_service

    given = collect(
        fields, type=type_, base_url=base_url, timeout=timeout, max_retries=max_retries, response_queue=response_queue
    )
    checked = spec(ServiceSpec, {"name": name, **_changes(given, *_secret(token, auth))})
    with open_hub() as hub:
        saved = add_service(hub, checked)
    _said(saved, "added", as_json=as_json)


@app.command()
def edit(
    name: Name,
    new_name: Annotated[str | None, typer.Option("--name", help="New name.")] = None,
    type_: Type = None,
    base_url: Url = None,
    auth: Auth = None,
    token: Token = None,
    timeout: Timeout = None,
    max_retries: Tries = None,
    response_queue: Queue = None,
    fields: Fields = None,
    as_json: JsonFlag = False,
) -> None:
    """Change a service. Other fields stay unchanged."""
    from hub.config.documents import service_document
    from hub.operations.services import update_service

    given = collect(
        fields,
        name=new_name,
        type=type_,
        base_url=base_url,
        timeout=timeout,
        max_retries=max_retries,
        response_queue=response_queue,
    )
    with open_hub() as hub:
        current = hub.configuration.service(name)
        keep_others(fields, given, service_document(current))
        token, auth = _secret(token, auth)
        if token is not None and auth is None and current.auth_type != "none":
            auth = current.auth_type
        if not (changes := _changes(given, token, auth)):
            raise usage("nothing to change: give a field, see `hub service edit --help`")
        saved = update_service(hub, name, changes)
    _said(saved, "changed", as_json=as_json)


@app.command()
def enable(name: Name, as_json: JsonFlag = False) -> None:
    """Enable a service. Its held tasks become due."""
    _enable(name, True, as_json)


@app.command()
def disable(name: Name, as_json: JsonFlag = False) -> None:
    """Disable a service. Its tasks are held."""
    _enable(name, False, as_json)


def _enable(name: str, enabled: bool, as_json: bool) -> None:
    with open_hub() as hub:
        service = hub.configuration.service(name)
        hub.registry.services.enable(name, enabled)
    said("service", service, "enabled" if enabled else "disabled", as_json=as_json)


@app.command()
def delete(name: Name, yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Delete a service and its rules. Their tasks become orphans."""
    with open_hub() as hub:
        service = hub.configuration.service(name)
        confirm(f"Delete service {name!r} and its rules?", yes=yes)
        gone = hub.registry.services.delete(name)
    if not as_json and gone:
        err.print(f"{gone} rule(s) deleted too; `hub tasks purge-orphans` deletes the tasks that are left")
    said("service", service, "deleted", as_json=as_json)


@app.command()
def test(name: Name, as_json: JsonFlag = False) -> None:
    """Test the connection to a service, without side effects."""
    from hub.operations.service_test import run_service_test

    with open_hub() as hub:
        tested = run_service_test(hub, name)
    if as_json:
        print_json({"service": name, "ok": tested.ok, "message": tested.message, "latency_ms": tested.latency_ms})
    else:
        print(f"{name}: {cell(tested.message, width=None)} ({tested.latency_ms:.0f} ms)")
    if not tested.ok:
        raise typer.Exit(1)


def _secret(token: str | None, auth: str | None) -> tuple[str | None, str | None]:
    from hub.cli.fields import secret

    return (secret(token) if token is not None else None), auth
