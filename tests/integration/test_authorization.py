"""Every route of the application with every role and every token scope, against what the route declares."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi import APIRouter, FastAPI

from hub.store.tokens import Scope
from hub.store.users import Role
from hub.web.authorization import (
    Access,
    Declared,
    check_declared,
    declared,
    needs,
)
from hub.web.console.pages import Pages
from hub.web.passwords import hash_password
from hub.web.server import make_app
from tests.support import clients
from tests.support.api import Api
from tests.support.hubs import add_rule, add_service

NAME = "preview-users"  # a name that begins as a path of the console does
SCOPES: tuple[Scope, ...] = ("ingest", "view", "manage")
ALLOWED = {
    Access.ROLE_VIEW: {"role view", "role manage"},
    Access.ROLE_MANAGE: {"role manage"},
    Access.SCOPE_INGEST: {"scope ingest", "scope manage"},
    Access.SCOPE_VIEW: {"scope view", "scope manage"},
    Access.SCOPE_MANAGE: {"scope manage"},
    Access.SIGNED_IN: {"role view", "role manage", "scope ingest", "scope view", "scope manage"},
    Access.SERVICE: set(),
}
CALLERS = ("nobody", "role view", "scope ingest", "scope view", "role manage", "scope manage")  # those who change: last


@pytest.fixture
def routes(api: Api) -> list[tuple[str, Declared]]:
    """(method, route) of everything; a service and a rule are there whose names begin as a path does."""
    add_service(api.hub, "http://127.0.0.1:9/", NAME, timeout=0.2)
    add_rule(api.hub, NAME, service=NAME)
    for role in ("view", "manage"):
        api.hub.accounts.users.add(role, hash_password("correct horse battery"), role)
    found = [(method, route) for route in declared(make_app(api.hub).routes) for method in route.methods]
    assert len(found) > 110
    return sorted(found, key=lambda one: one[0] == "DELETE" or "delete" in one[1].path)


@pytest.fixture
def tokens(api: Api) -> dict[str, str]:
    return {f"scope {scope}": api.hub.accounts.tokens.add(scope, scope)[1] for scope in SCOPES}


@pytest.fixture
def client(api: Api) -> Iterator[clients.Client]:
    with clients.Client(base_url=api.url) as client:
        yield client


def ask(
    api: Api, client: clients.Client, caller: str, tokens: dict[str, str], method: str, path: str
) -> httpx.Response:
    """One request with no more than the proof of who asks; a console user gets a session of its own."""
    headers: dict[str, str] = {}
    kind, _, name = caller.partition(" ")
    if kind == "scope":
        headers["Authorization"] = f"Bearer {tokens[caller]}"
    if kind == "role":
        secret = api.hub.accounts.sessions.start(api.hub.accounts.users.get(name).id)
        session = api.hub.accounts.sessions.get(secret)
        assert session is not None
        headers |= {"Cookie": f"hub_session={secret}", "X-CSRF-Token": session.csrf}
    client.cookies.clear()
    return client.request(method, path, headers=headers)


def refused(response: httpx.Response) -> bool:
    to_login = response.status_code == 303 and response.headers["location"].startswith("/login")
    return response.status_code in (401, 403) or to_login


def filled(path: str) -> str:
    """A path with something for each parameter: the name, or a number that no row has."""
    path = re.sub(r":\w+}", "}", path)  # without converters
    return re.sub(r"{(name|service)}", NAME, re.sub(r"{(\w*id_?|number)}", "987654", path)).replace("{secret}", "x")


def test_every_route_lets_in_whom_it_declares_and_nobody_else(
    api: Api, client: clients.Client, routes: list[tuple[str, Declared]], tokens: dict[str, str]
) -> None:
    wrong = []
    for caller in CALLERS:
        for method, route in routes:
            if route.path in ("/logout", "/login") and method == "POST":
                continue  # the next two tests
            response = ask(api, client, caller, tokens, method, filled(route.path))
            assert route.access is not None
            allowed = route.access is Access.PUBLIC or caller in ALLOWED[route.access]
            if refused(response) == allowed or response.status_code >= 500:
                wrong.append((caller, method, route.path, route.access.value, response.status_code))
        if "manage" not in caller:
            service, rule = api.hub.configuration.service(NAME), api.hub.configuration.rule(NAME)
            assert (service.version, service.enabled, rule.version, rule.enabled) == (1, True, 1, True), caller
            assert len(api.hub.accounts.users.list()) == 2 and len(api.hub.accounts.tokens.list()) == 3, caller
    assert wrong == []


def test_signing_in_is_for_everybody(api: Api, client: clients.Client) -> None:
    form = {"name": "view", "password": "correct horse battery"}
    api.hub.accounts.users.add("view", hash_password("correct horse battery"), "view")
    answer = client.post("/login", data=form)
    assert answer.status_code == 303 and answer.headers["location"] == "/"


@pytest.mark.parametrize("role", ["view", "manage"])
def test_everybody_may_sign_out(api: Api, client: clients.Client, role: Role) -> None:
    api.hub.accounts.users.add(role, hash_password("correct horse battery"), role)
    answer = ask(api, client, f"role {role}", {}, "POST", "/logout")
    assert answer.status_code == 303 and answer.headers["location"] == "/login"
    assert ask(api, client, "nobody", {}, "POST", "/logout").status_code == 401


def test_a_route_without_a_declaration_fails_at_the_start(api: Api) -> None:
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    inner = APIRouter()

    @inner.post("/open", response_model=None)
    @needs(Access.PUBLIC)
    def fine() -> None: ...

    app.include_router(inner)
    check_declared(app.routes)

    @inner.delete("/forgotten", response_model=None)
    def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="DELETE /forgotten"):
        check_declared(app.routes)
    console = Pages(api.hub).router()
    with pytest.raises(RuntimeError, match="/undeclared"):
        console.get("/undeclared", response_model=None)(forgotten)
    with pytest.raises(RuntimeError, match="/public"):  # a router that checks sessions cannot serve everybody
        console.get("/public", response_model=None)(fine)


def test_no_redirect_repeats_a_host_that_the_caller_made_up(client: clients.Client) -> None:
    for path in ("/services/", "/api/v1/services/", "/login/", "/healthz/", "/static/hub.css/"):
        answer = client.get(path, headers={"Host": "evil.example"})
        assert "evil.example" not in answer.headers.get("location", ""), path
        assert answer.status_code == 404, path
