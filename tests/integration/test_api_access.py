"""Who may do what over HTTP: no token, wrong tokens, scopes, expiry, too often; and how every refusal looks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from hub.app.lifecycle import build
from hub.settings import Settings
from tests.support import clients
from tests.support.api import Api, problem, serving
from tests.support.hubs import add_rule, add_service
from tests.support.waiting import eventually

OPEN = {"/healthz", "/readyz", "/metrics"}


def operations(api: Api) -> list[tuple[str, str, str]]:
    """(method, path, scope) of everything the API can do."""
    document = api.client("view").get("/api/openapi.json").json()
    return [
        (method.upper(), re.sub(r"{[^}]+}", "1", path), operation["security"][0]["token"][0])
        for path, item in document["paths"].items()
        if path.startswith("/api/v1/")
        for method, operation in item.items()
    ]


def test_nothing_is_anonymous_but_signs_of_life(api: Api) -> None:
    client = api.client(None)
    for path in OPEN:
        assert client.get(path).status_code == 200
    asked = [*operations(api), ("GET", "/api/docs", ""), ("GET", "/api/openapi.json", "")]
    assert len(asked) > 45
    for method, path, _ in asked:
        refused = client.request(method, path)
        problem(refused, 401)
        assert refused.headers["www-authenticate"].startswith("Bearer"), path


def test_a_scope_allows_what_it_says_and_nothing_else(api: Api) -> None:
    """The whole matrix: every operation with every scope."""
    clients = {scope: api.client(scope) for scope in ("ingest", "view", "manage")}
    for method, path, needed in operations(api):
        for scope, client in clients.items():
            status = client.request(method, path).status_code
            if scope in (needed, "manage"):
                assert status not in (401, 403), (scope, method, path, status)
            else:
                assert status == 403, (scope, method, path, status)
    for client in clients.values():
        assert client.get("/api/docs").status_code == 200, "any token may read what there is"


def test_a_token_ends_when_it_is_revoked_or_expires(api: Api) -> None:
    manage = api.client()
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = manage.post("/api/v1/tokens", json={"name": "ci", "scope": "view", "expires_at": soon}).json()
    assert made["token"].startswith("hub_") and made["scope"] == "view" and made["last_used_at"] is None
    client = api.client(None, Authorization=f"bearer {made['token']}")
    assert client.get("/api/v1/stats").status_code == 200
    listed = {t["name"]: t for t in manage.get("/api/v1/tokens").json()["items"]}
    assert listed["ci"]["last_used_at"] and made["token"] not in str(listed)
    problem(manage.post("/api/v1/tokens", json={"name": "ci", "scope": "view"}), 409)
    api.hub.db.run("UPDATE api_tokens SET expires_at = now() - interval '1 second' WHERE name = 'ci'")
    eventually(lambda: client.get("/api/v1/stats").status_code == 401, "the change is announced to the web server")
    problem(client.get("/api/v1/stats"), 401)
    api.hub.db.run("UPDATE api_tokens SET expires_at = NULL WHERE name = 'ci'")
    assert client.get("/api/v1/stats").status_code == 200
    assert manage.delete("/api/v1/tokens/ci").json() == {"revoked": "ci"}
    problem(client.get("/api/v1/stats"), 401)
    problem(manage.delete("/api/v1/tokens/nobody"), 404)
    past = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    problem(manage.post("/api/v1/tokens", json={"name": "x", "scope": "view", "expires_at": past}), 422, "expires_at")
    problem(manage.post("/api/v1/tokens", json={"name": "x", "scope": "root"}), 422, "scope")


def test_guessing_tokens_is_told_to_wait_and_locks_nobody_out(api: Api) -> None:
    good = api.client("view")
    answers = [api.client(None, Authorization=f"Bearer hub_{n}").get("/api/v1/stats") for n in range(30)]
    assert [a.status_code for a in answers].count(401) >= 20 and answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert good.get("/api/v1/stats").status_code == 200


def test_one_token_cannot_ask_too_often(alone: Settings) -> None:
    settings = alone.model_copy(update={"listen": "127.0.0.1:0", "token_rate": 3.0})
    with build(settings, role="up") as hub, serving(hub) as api:
        busy, other = api.client("view"), api.client("view")
        answers = [busy.get("/api/v1/event-names") for _ in range(6)]
        assert answers[0].status_code == 200
        refused = next(a for a in answers if a.status_code == 429)
        assert problem(refused, 429)["detail"] and refused.headers["Retry-After"] == "1"
        assert other.get("/api/v1/event-names").status_code == 200


def test_metrics_ask_for_their_token_when_one_is_set(alone: Settings) -> None:
    token = SecretStr("scrape-me")
    settings = alone.model_copy(update={"listen": "127.0.0.1:0", "metrics_token": token})
    with build(settings, role="up") as hub, serving(hub) as api:
        assert api.client("manage").get("/metrics").status_code == 401
        assert api.client(None).get("/metrics").status_code == 401
        answer = api.client(None, Authorization="Bearer scrape-me").get("/metrics")
        assert answer.status_code == 200 and "hub_build_info" in answer.text
        assert answer.headers["content-type"].startswith("text/plain")


def test_every_refusal_is_a_problem(api: Api) -> None:
    client = api.client()
    problem(client.get("/nowhere"), 404)
    problem(client.get("/api/v1/nowhere"), 404)
    html = {"Accept": "text/html,*/*;q=0.8"}
    problem(client.get("/api/v1/nowhere", headers=html), 404)
    person = client.get("/nowhere", headers=html)
    assert person.status_code == 404 and "<h1>Not found</h1>" in person.text and "<script" not in person.text
    wrong = client.put("/api/v1/services", json={})
    problem(wrong, 405)
    assert wrong.headers["Allow"] == "GET, POST"
    problem(client.get("/api/v1/tasks/0"), 422, "task_id")
    problem(client.get("/api/v1/tasks/x"), 404)
    problem(client.get("/api/v1/tasks/99999999999999999999"), 422, "task_id")
    problem(client.get("/api/v1/tasks", params={"limit": 0}), 422, "limit")
    problem(client.get("/api/v1/tasks", params={"service": "a\0b"}), 422, "service")
    problem(client.get("/api/v1/deliveries", params={"since": "yesterday"}), 422, "since")
    problem(client.get("/api/v1/deliveries", params={"since": "0001-01-01T00:00:00"}), 422, "since")
    problem(client.get("/api/v1/services/%00%ff"), 404)
    problem(client.post("/api/v1/services", content=b"{}", headers={"Content-Type": "text/plain"}), 415, "Content-Type")
    problem(client.post("/api/v1/services", content=b"[" * 50_000, headers={"Content-Type": "application/json"}), 422)
    problem(client.post("/api/v1/services", json={"name": "x" * 10_000_000}), 413, "body")


def test_answers_carry_the_headers_that_keep_browsers_and_caches_honest(api: Api) -> None:
    client = api.client()
    for path in ("/api/v1/stats", "/healthz", "/nowhere"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert "server" not in headers
    assert client.head("/healthz").status_code == client.head("/readyz").status_code == 200


def test_the_docs_need_neither_scripts_nor_the_internet(api: Api) -> None:
    page = api.client("ingest").get("/api/docs")
    assert page.status_code == 200 and page.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<style|style=|onclick|(?:src|href)=\"https?://", page.text)
    assert "/api/v1/events" in page.text and "Idempotency-Key" in page.text and "NewToken" in page.text
    for link in re.findall(r'(?:href|src)="(/[^"#]*)"', page.text):
        assert api.client("view").get(link).status_code == 200, link
    targets = set(re.findall(r'id="([^"]+)"', page.text))
    assert set(re.findall(r'href="#([^"]+)"', page.text)) <= targets


def test_a_browser_that_is_signed_in_reads_the_docs_without_a_token(api: Api) -> None:
    user = api.hub.accounts.users.add("ada", "x", "view")
    cookie = {"hub_session": api.hub.accounts.sessions.start(user.id)}
    with clients.Client(base_url=api.url, cookies=cookie) as browser:
        assert browser.get("/api/docs").status_code == 200
        assert browser.get("/api/v1/stats").status_code == 401, "cookies are for the console only"
    with clients.Client(base_url=api.url, cookies={"hub_session": "x"}) as browser:
        assert browser.get("/api/docs").status_code == 401
        shown = browser.get("/api/docs", headers={"Accept": "text/html,*/*;q=0.8"})
        assert shown.status_code == 303 and shown.headers["Location"] == "/login?next=/api/docs"


@pytest.mark.parametrize("scope", ["ingest", "view", "manage"])
def test_no_answer_to_anybody_holds_a_secret(api: Api, scope: str) -> None:
    """Canaries in every secret field of a service, looked for in every answer that the API can give."""
    canary = "canary7f3e" * 3 + "AA"  # 24 bytes in base64, as a signing secret has
    client, manage = api.client(scope), api.client()  # type: ignore[arg-type]
    secrets = {
        "auth": {"type": "oauth2", "token_url": "http://127.0.0.1:9/t", "client_id": "id", "client_secret": canary},
        "secret_headers": {"X-Secret": canary},
        "inbound": {"token": canary, "signing_secret": "whsec_" + canary},
        "signing_secret": canary,
        "signing_secret_old": canary,
    }
    made = manage.post("/api/v1/services", json={"name": "1", "base_url": "http://127.0.0.1:9/"} | secrets)
    assert made.status_code == 201 and canary not in made.text and "***" in made.text
    add_service(api.hub, f"amqp://user:{canary}@127.0.0.1:9/", "amqp", type="amqp")
    add_service(
        api.hub,
        f"http://user:{canary}@127.0.0.1:9/",
        "basic",
        auth={"type": "basic", "username": "u", "password": canary},
    )
    add_rule(api.hub, "1", service="1")
    answers = [client.request(method, path) for method, path, _ in operations(api) if method == "GET"]
    answers += [client.post(f"/api/v1/services/{name}/test") for name in ("1", "amqp", "basic")]
    answers += [client.patch("/api/v1/services/1", json={"timeout": 2}), client.get("/metrics"), client.get("/readyz")]
    answers += [manage.post("/api/v1/services", json={"name": canary * 20, "base_url": canary} | secrets)]
    assert not [a.url for a in answers if canary in a.text]
