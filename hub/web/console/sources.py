"""Event sources: list with state and lag, form, connection test, reset."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.config.definitions import parse_spec
from hub.config.sources import SourceSpec, source_document
from hub.errors import ConfigError, ConflictError, HubError, StaleError
from hub.operations import sources
from hub.web.authorization import Access, needs
from hub.web.console.filters import digits
from hub.web.console.forms import Form
from hub.web.console.pages import Pages

_NUMBERS = ("poll_interval", "batch", "gap_age", "query_timeout", "backlog")
_SCHEMES = ("mysql", "mariadb", "postgresql")


def make_sources(pages: Pages) -> APIRouter:
    """Return the routes of `/sources`."""
    router = pages.router()
    hub = pages.hub
    store = hub.registry.sources

    @router.get("/sources")
    @needs(Access.ROLE_VIEW)
    def list_(request: Request) -> Response:
        states = {row["name"]: row for row in sources.source_status(hub)}
        rows = [(source_document(source), states[source.name]) for source in store.sources() if source.name in states]
        return pages.render(request, "sources.html", rows=rows)

    @router.get("/sources/new")
    @needs(Access.ROLE_MANAGE)
    def new(request: Request) -> Response:
        return pages.render(request, "source_form.html", **_blank(), old=None, version=0, problem="")

    @router.post("/sources/new")
    @needs(Access.ROLE_MANAGE)
    def add(request: Request) -> Response:
        form: Form = request.state.form
        document = _document(form, None)
        try:
            source = store.add(parse_spec(SourceSpec, document))
        except (ConfigError, ConflictError) as e:
            shown = _typed(document, form)
            return pages.render(request, "source_form.html", 422, **shown, old=None, version=0, problem=str(e))
        return pages.go("/sources", f"Source {source.name} was added. Reading starts within seconds.")

    @router.get("/sources/{name}/edit")
    @needs(Access.ROLE_MANAGE)
    def edit(request: Request, name: str) -> Response:
        source = store.source(name)
        shown = _shown(source_document(source)) | {"stored": "password" in source.secrets}
        return pages.render(request, "source_form.html", **shown, old=name, version=source.version, problem="")

    @router.post("/sources/{name}/edit")
    @needs(Access.ROLE_MANAGE)
    def save(request: Request, name: str) -> Response:
        form: Form = request.state.form
        current = store.source(name)
        document = source_document(current)
        try:
            document = _document(form, source_document(current, secrets=True)["url"])
            source = store.update(name, document, digits(form.get("version")))
        except (ConfigError, ConflictError) as e:
            shown = _shown(source_document(current)) if isinstance(e, StaleError) else _typed(document, form)
            return pages.render(
                request,
                "source_form.html",
                409 if isinstance(e, ConflictError) else 422,
                **shown | {"stored": "password" in current.secrets},
                old=name,
                version=current.version,
                problem=str(e),
            )
        return pages.go("/sources", f"Source {source.name} was saved.")

    @router.post("/sources/{name}/enable")
    @needs(Access.ROLE_MANAGE)
    def enable(request: Request, name: str) -> Response:
        store.enable(name, True)
        return pages.go("/sources", f"{name} was enabled. Reading continues where it ended.")

    @router.post("/sources/{name}/disable")
    @needs(Access.ROLE_MANAGE)
    def disable(request: Request, name: str) -> Response:
        store.enable(name, False)
        return pages.go("/sources", f"{name} was disabled. Its position stays.")

    @router.post("/sources/{name}/delete")
    @needs(Access.ROLE_MANAGE)
    def delete(request: Request, name: str) -> Response:
        store.delete(name)
        return pages.go("/sources", f"{name} was deleted. Events that were read stay.")

    @router.post("/sources/{name}/test")
    @needs(Access.ROLE_MANAGE)
    def test(request: Request, name: str) -> Response:
        tested = sources.run_source_test(hub, name)
        text = f"Reached: {tested.message}" if tested.ok else f"Not reached: {tested.message}"
        return pages.go("/sources", text, bad=not tested.ok)

    @router.post("/sources/{name}/reset")
    @needs(Access.ROLE_MANAGE)
    def reset(request: Request, name: str) -> Response:
        start = request.state.form.get("to") or "now"
        try:
            sources.reset_source(hub, name, start)
        except HubError as e:
            return pages.go("/sources", f"Not reset: {e}", bad=True)
        return pages.go("/sources", f"{name} is read from {start} on.")

    return router


def _blank() -> dict[str, Any]:
    fields = SourceSpec.model_fields
    document = {name: field.default for name, field in fields.items()} | {"name": "", "url": ""}
    return _shown(document) | {"stored": False}


def _document(form: Form, stored: str | None) -> dict[str, Any]:
    """What the form says, in the shape of the apply file.

    Args:
        stored: the URL with its password, which stays when its field is empty and goes to no other host.

    Raises:
        ConfigError: the host has changed, and the password was not given again.
    """
    document: dict[str, Any] = {"name": form.get("name"), "enabled": "enabled" in form, "url": _url(form, stored)}
    document |= {name: form.get(name) for name in ("prefix", "tls", "start")}
    document |= {name: form.get(name) or SourceSpec.model_fields[name].default for name in _NUMBERS}
    document["start"] = document["start"] or "now"
    document["events"] = [line.strip() for line in form.raw("events").splitlines() if line.strip()] or ["*"]
    document["ca_file"] = form.get("ca_file") or None
    document["lookups"] = "lookups" in form
    document["keep_unmatched"] = "keep_unmatched" in form
    return document


def _url(form: Form, stored: str | None) -> str:
    """The URL, put together from its parts; each is percent-encoded here."""
    scheme = form.get("scheme") if form.get("scheme") in _SCHEMES else "mysql"
    host, port, password = form.get("host"), form.get("port"), form.raw("password")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    known = urlsplit(stored or "")
    login = quote(form.get("user"), safe="")
    if password:
        login += f":{quote(password, safe='')}"
    elif known.password and (known.hostname or "") != form.get("host").strip("[]").lower():
        raise ConfigError("give it again: the host has changed", field="password")
    elif known.password:
        login += f":{known.password}"
    query = f"?{known.query}" if known.query and not host else ""
    return f"{scheme}://{login}@{host}{f':{port}' if port else ''}/{quote(form.get('database'), safe='')}{query}"


def _typed(document: dict[str, Any], form: Form) -> dict[str, Any]:
    """What the form's fields hold after a mistake; the password only as it was typed."""
    names = ("scheme", "host", "port", "user", "database")
    return _shown(document) | {"url": {name: form.get(name) for name in names}, "stored": False}


def _shown(document: dict[str, Any]) -> dict[str, Any]:
    """What the form's fields hold."""
    try:
        url = urlsplit(document["url"])
        port: int | str = url.port or ""
    except ValueError:
        url, port = urlsplit(""), ""
    parts = {
        "scheme": url.scheme or "mysql",
        "host": url.hostname or "",
        "port": port,
        "user": unquote(url.username or ""),
        "database": unquote(url.path.strip("/")),
    }
    return {"d": document, "url": parts, "events": "\n".join(document["events"]), "schemes": _SCHEMES}
