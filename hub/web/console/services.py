"""Services: list, page, form, connection test, circuit."""

from __future__ import annotations

from typing import Any

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
from hub.web.authorization import Access, needs
from hub.web.console import charts
from hub.web.console.filters import digits, of, segment
from hub.web.console.form_errors import service_errors
from hub.web.console.forms import Form
from hub.web.console.links import back
from hub.web.console.pages import Pages
from hub.web.console.service_form import BLANK, stored_fields, to_document, to_fields


def _message(saved: services.Saved, done: str) -> str:
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
        return pages.render(request, "service_form.html", **to_fields(BLANK), old=None, version=0, problem="")

    @router.post("/services/new")
    @needs(Access.ROLE_MANAGE)
    def add(request: Request) -> Response:
        document: dict[str, Any] = {}
        try:
            document = to_document(request.state.form, None)
            saved = services.add_service(hub, parse_spec(ServiceSpec, document))
        except (ConfigError, ConflictError) as e:
            shown = to_fields(BLANK | document, request.state.form)
            errors = service_errors(e, shown["d"])
            return pages.render(request, "service_form.html", 422, **shown, old=None, version=0, errors=errors)
        return pages.go(f"/services/{segment(saved.service.name)}", _message(saved, "added"))

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
        shown = to_fields(document) | {"stored": set() if service.secrets_unreadable else stored_fields(document)}
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
            changes = to_document(form, document, current.secrets.get("password"))
            saved = services.update_service(hub, name, changes, digits(form.get("version")))
        except (ConfigError, ConflictError) as e:
            if not isinstance(e, StaleError):
                document = document | changes
            stored = set() if current.secrets_unreadable else stored_fields(service_document(current))
            shown = to_fields(document, form) | {"stored": stored}
            return pages.render(
                request,
                "service_form.html",
                409 if isinstance(e, ConflictError) else 422,
                **shown,
                old=name,
                version=current.version,
                problem=str(e) if isinstance(e, StaleError) else "",
                errors=[] if isinstance(e, StaleError) else service_errors(e, shown["d"]),
                unreadable=current.secrets_unreadable,
            )
        return pages.go(f"/services/{segment(saved.service.name)}", _message(saved, "saved"))

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
