"""Services: list, page, form, connection test, circuit."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import Response

from hub.config.definitions import ServiceSpec, parse_spec
from hub.config.documents import service_document
from hub.domain.text import MASK
from hub.errors import (
    ConfigError,
    ConflictError,
    HubError,
    StaleError,
)
from hub.operations import services
from hub.operations.circuits import reset_circuits
from hub.operations.service_test import run_service_test
from hub.store.dead_letters import Chosen
from hub.transports.amqp.uri import TEXT_PARAMETERS
from hub.web.authorization import Access, needs
from hub.web.console import charts
from hub.web.console.filters import digits, of, segment
from hub.web.console.pages import Form, Pages, back

_NUMBERS = (
    "timeout",
    "max_retries",
    "retry_backoff",
    "cb_failure_threshold",
    "cb_cooldown",
    "rate_limit",
    "max_attempts",
)
_TEXTS = ("response_queue", "ca_file", "client_cert", "client_key", "credentials_origin")
_AUTH_SECRETS = ("token", "password", "client_secret")
_AUTH = {
    "bearer": ("token",),
    "apikey": ("token", "header"),
    "basic": ("username", "password"),
    "wsse": ("username", "password", "password_type"),
    "oauth2": ("token_url", "client_id", "client_secret", "scope"),
}
_BLANK = {
    "name": "",
    "type": "rest",
    "base_url": "",
    "enabled": True,
    "auth": {"type": "none"},
    "timeout": 5.0,
    "max_retries": 3,
    "retry_backoff": 1.0,
    "cb_failure_threshold": 5,
    "cb_cooldown": 30.0,
    "response_queue": None,
}


def _told(saved: services.Saved, done: str) -> str:
    """The message after a change."""
    said = f"Service {saved.service.name} was {done}."
    return f"{said} Note: {saved.note}." if saved.note else said


def make_services(pages: Pages) -> APIRouter:
    """Return the routes of `/services`."""
    router = pages.router()
    hub = pages.hub

    @router.get("/services")
    @needs(Access.ROLE_VIEW)
    def list_(request: Request) -> Response:
        stats = hub.views.overview.stats()
        circuits = {row["service"]: row for row in stats["breakers"]}
        lately = hub.activity.services(3600)
        rows = [
            {
                "service": s,
                "url": service_document(s)["base_url"],
                "circuit": circuits.get(s.name, {"state": "closed"}),
                "counts": stats["services"].get(s.name, {}),
                "lately": lately.get(s.name, {"ok": 0, "failed": 0}),
            }
            for s in hub.configuration.services()
        ]
        return pages.render(request, "services.html", rows=rows, share=charts.share)

    @router.get("/services/new")
    @needs(Access.ROLE_MANAGE)
    def new(request: Request) -> Response:
        return pages.render(request, "service_form.html", **_shown(_BLANK), old=None, version=0, problem="")

    @router.post("/services/new")
    @needs(Access.ROLE_MANAGE)
    def add(request: Request) -> Response:
        document: dict[str, Any] = {}
        try:
            document = _document(request.state.form, None)
            saved = services.add_service(hub, parse_spec(ServiceSpec, document))
        except (ConfigError, ConflictError) as e:
            shown = _shown(_BLANK | document, request.state.form)
            return pages.render(request, "service_form.html", 422, **shown, old=None, version=0, problem=str(e))
        return pages.go(f"/services/{segment(saved.service.name)}", _told(saved, "added"))

    @router.get("/services/{name}")
    @needs(Access.ROLE_VIEW)
    def show(request: Request, name: str) -> Response:
        service = hub.configuration.service(name)
        document = service_document(service)
        stats = hub.views.overview.stats()
        minutes = hub.activity.minutes(60, service=name)
        return pages.render(
            request,
            "service.html",
            service=service,
            document=document,
            circuit=hub.views.overview.breaker(name),
            counts=stats["services"].get(name, {}),
            rules=[r for r in hub.configuration.rules() if r.service == name],
            deliveries=hub.views.deliveries.list(service=name, limit=20),
            lately=hub.activity.services(3600).get(name, {"ok": 0, "failed": 0, "p50": None, "p95": None}),
            outcomes=charts.outcomes(minutes),
            latency=charts.latency(minutes),
            runs=hub.views.runs.scheduled(service=name, limit=5),
            dead=hub.dead_letters.count(Chosen(service=name)),
        )

    @router.get("/services/{name}/edit")
    @needs(Access.ROLE_MANAGE)
    def edit(request: Request, name: str) -> Response:
        service = hub.configuration.service(name)
        document = service_document(service, mask="" if service.secrets_unreadable else MASK)
        shown = _shown(document) | {"stored": set() if service.secrets_unreadable else _stored(document)}
        return pages.render(
            request,
            "service_form.html",
            **shown,
            old=name,
            version=service.version,
            problem="",
            unreadable=service.secrets_unreadable,
        )

    @router.post("/services/{name}/edit")
    @needs(Access.ROLE_MANAGE)
    def save(request: Request, name: str) -> Response:
        form: Form = request.state.form
        current = hub.configuration.service(name)
        document = service_document(current)
        changes: dict[str, Any] = {}
        try:
            changes = _document(form, document, current.secrets.get("password"))
            saved = services.update_service(hub, name, changes, digits(form.get("version")))
        except (ConfigError, ConflictError) as e:
            if not isinstance(e, StaleError):
                document = document | changes
            stored = set() if current.secrets_unreadable else _stored(service_document(current))
            shown = _shown(document, form) | {"stored": stored}
            return pages.render(
                request,
                "service_form.html",
                409 if isinstance(e, ConflictError) else 422,
                **shown,
                old=name,
                version=current.version,
                problem=str(e),
                unreadable=current.secrets_unreadable,
            )
        return pages.go(f"/services/{segment(saved.service.name)}", _told(saved, "saved"))

    @router.post("/services/{name}/enable")
    @needs(Access.ROLE_MANAGE)
    def enable(request: Request, name: str) -> Response:
        hub.registry.services.enable(name, True)
        return pages.go(back(request, f"/services/{segment(name)}"), f"{name} was enabled. Its held tasks continue.")

    @router.post("/services/{name}/disable")
    @needs(Access.ROLE_MANAGE)
    def disable(request: Request, name: str) -> Response:
        hub.registry.services.enable(name, False)
        return pages.go(back(request, f"/services/{segment(name)}"), f"{name} was disabled. Its tasks are held.")

    @router.post("/services/{name}/delete")
    @needs(Access.ROLE_MANAGE)
    def delete(request: Request, name: str) -> Response:
        rules = hub.registry.services.delete(name)
        return pages.go(
            "/services", f"{name} was deleted, with {of(rules, 'rule')}. Its remaining tasks are orphans in the queue."
        )

    @router.post("/services/{name}/reset")
    @needs(Access.ROLE_MANAGE)
    def reset(request: Request, name: str) -> Response:
        closed = reset_circuits(hub, hub.configuration.service(name))
        text = (
            f"The circuit of {name} was closed. Its tasks continue."
            if closed
            else f"The circuit of {name} is closed already."
        )
        return pages.go(back(request, f"/services/{segment(name)}"), text)

    @router.post("/services/{name}/test")
    @needs(Access.ROLE_MANAGE)
    def test(request: Request, name: str) -> Response:
        try:
            tested = run_service_test(hub, name)
        except HubError as e:
            return pages.go(f"/services/{segment(name)}", f"Not tested: {e}", bad=True)
        text = f"Reached: {tested.message}" if tested.ok else f"Not reached: {tested.message}"
        return pages.go(f"/services/{segment(name)}", text, bad=not tested.ok)

    return router


def _document(form: Form, old: dict[str, Any] | None, known: str | None = None) -> dict[str, Any]:
    """What the form says, in the shape of the apply file. A stored secret whose field is empty stays."""
    type_ = form.get("type", "rest")
    document: dict[str, Any] = {"name": form.get("name"), "type": type_, "enabled": "enabled" in form}
    document["base_url"] = _amqp_url(form, old, known) if type_ == "amqp" else form.get("base_url")
    for name in _NUMBERS:
        text = form.get(name)
        document[name] = text if text else _BLANK.get(name)
    for name in _TEXTS:
        document[name] = form.get(name) or None
    if type_ != "amqp":
        document["response_queue"] = None
    auth_type = "none" if type_ == "amqp" else form.get("auth_type", "none")
    auth: dict[str, Any] = {"type": auth_type}
    for name in _AUTH.get(auth_type, ()):
        auth[name] = form.get(f"auth_{name}") or None
    document["auth"] = auth
    document["headers"] = _headers(form.raw("headers"), "headers")
    document["secret_headers"] = _headers(form.raw("secret_headers"), "secret_headers")
    document["mask"] = [line.strip() for line in form.raw("mask").splitlines() if line.strip()]
    delays = [part.strip() for part in form.get("retry_delays").split(",") if part.strip()]
    document["retry_delays"] = delays or None
    for name in ("signing_secret", "signing_secret_old"):
        document[name] = form.get(name) or None
    document["inbound"] = {name: form.get(f"inbound_{name}") or None for name in ("token", "signing_secret")}
    if old is not None:
        _keep(document, old, removed=form.all("remove"))
    return document


def _keep(document: dict[str, Any], old: dict[str, Any], *, removed: Collection[str]) -> None:
    """Secrets that are stored stay where their field is empty, unless they are to be removed."""
    same_kind = document["auth"]["type"] == old["auth"]["type"]
    parts = (
        ("auth_", document["auth"], old["auth"] if same_kind else {}, _AUTH_SECRETS),
        ("", document, old, ("signing_secret", "signing_secret_old")),
        ("inbound_", document["inbound"], old.get("inbound") or {}, ("token", "signing_secret")),
        ("", document["secret_headers"], old.get("secret_headers") or {}, tuple(document["secret_headers"])),
    )
    for prefix, new, stored, names in parts:
        for name in names:
            if not new.get(name) and stored.get(name) and f"{prefix}{name}" not in removed:
                new[name] = MASK


def _stored(document: dict[str, Any]) -> set[str]:
    """The form's fields whose values are stored, of a service's document."""
    found = {f"auth_{name}" for name in _AUTH_SECRETS if document["auth"].get(name)}
    found |= {name for name in ("signing_secret", "signing_secret_old") if document.get(name)}
    found |= {f"inbound_{name}" for name in document.get("inbound") or {}}
    return found | ({"amqp_password"} if document["type"] == "amqp" and MASK in document["base_url"] else set())


def _headers(text: str, field: str) -> dict[str, str]:
    """`Name: value` a line."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip():
            name, colon, value = line.partition(":")
            if not colon:
                raise ConfigError(f"{line.strip()[:40]!r} is no `Name: value`", field=field)
            found[name.strip()] = value.strip()
    return found


def _amqp_url(form: Form, old: dict[str, Any] | None, known: str | None) -> str:
    """The URI, put together from its parts; each is percent-encoded here, so people type what they mean.

    Args:
        known: the password that is stored. It stays when its field is empty, and goes to no other host.
    """
    host, port = form.get("amqp_host") or "localhost", form.get("amqp_port")
    if port and not port.isdigit():
        raise ConfigError("must be a number", field="port")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    user, password = form.get("amqp_user"), form.raw("amqp_password")
    login = ""
    if user or password:
        if password == MASK and (known is None or old is None):
            raise ConfigError("is masked (***), and there is none to keep; give it", field="password")
        if password in ("", MASK) and known is not None and old is not None:
            if form.get("amqp_host") != urlsplit(old["base_url"]).hostname:
                raise ConfigError("give it again: the host has changed", field="password")
            password = known
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "") + "@"
    vhost = form.get("amqp_vhost")
    path = f"/{quote(vhost, safe='')}" if vhost else ""
    query = {name: form.get(f"amqp_{name}") for name in TEXT_PARAMETERS if form.get(f"amqp_{name}")}
    if old and old["type"] == "amqp":  # what the form has no field for stays
        query |= {key: value for key, value in parse_qsl(urlsplit(old["base_url"]).query) if key not in TEXT_PARAMETERS}
    scheme = "amqps" if "amqp_tls" in form else "amqp"
    return f"{scheme}://{login}{host}{f':{port}' if port else ''}{path}{'?' + urlencode(query) if query else ''}"


def _shown(document: dict[str, Any], typed: Form | None = None) -> dict[str, Any]:
    """What the form's fields hold; a password only as it was typed."""
    amqp: dict[str, Any] = dict.fromkeys(("host", "port", "user", "password", "vhost", "tls", *TEXT_PARAMETERS), "")
    if document["type"] == "amqp" and document["base_url"]:
        try:
            url = urlsplit(document["base_url"])
            login, _, _ = url.netloc.rpartition("@")
            user, _, password = login.partition(":")
            amqp |= {
                "host": url.hostname or "",
                "port": url.port or "",
                "user": unquote(user),
                "password": "" if password == MASK else unquote(password),
                "vhost": unquote(url.path[1:]),
                "tls": url.scheme == "amqps",
            }
            amqp |= {key: value for key, value in parse_qsl(url.query) if key in TEXT_PARAMETERS}
        except ValueError:
            pass  # it is shown as far as it can be read
    if typed is not None:
        amqp["password"] = typed.raw("amqp_password")
    lines = {
        part: "\n".join(f"{k}: {'' if v == MASK else v}" for k, v in (document.get(part) or {}).items())
        for part in ("headers", "secret_headers")
    }
    return {
        "d": document,
        "stored": set(),
        "amqp": amqp,
        "lines": lines,
        "auth": document.get("auth") or {"type": "none"},
        "inbound": document.get("inbound") or {},
        "mask": "\n".join(document.get("mask") or []),
        "delays": ", ".join(
            f"{float(v):g}" if str(v).replace(".", "", 1).isdigit() else str(v)
            for v in document.get("retry_delays") or []
        ),
    }
