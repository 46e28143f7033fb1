"""Services call the hub over a real server: who may, what is kept, what becomes of it, and what comes twice."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from hub.inbound.webhooks import WEBHOOK_RECEIVED
from tests.support import clients
from tests.support.api import Api, problem
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, count, emit

SECRET = "whsec_" + base64.b64encode(b"inbound-signing-canary-0123456789").decode()
OUTBOUND = "whsec_" + base64.b64encode(b"outbound-signing-canary-012345678").decode()
TOKEN = "inbound-token-canary"
CANARIES = (TOKEN, SECRET, OUTBOUND, "outbound-token-canary")


@pytest.fixture
def caller(api: Api) -> clients.Client:
    """The service `crm` with both kinds of inbound secrets, and a client that proves nothing yet."""
    add_service(
        api.hub,
        "http://127.0.0.1:9/",
        inbound={"token": TOKEN, "signing_secret": SECRET},
        auth={"type": "bearer", "token": "outbound-token-canary"},
        signing_secret=OUTBOUND,
    )
    return api.client(None)


def signed(body: bytes, message_id: str, at: datetime | None = None, secret: str = SECRET) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, at, body.decode()),
        "Content-Type": "application/json",
    }


def inbound(api: Api) -> list[dict[str, Any]]:
    return api.hub.views.deliveries.list(direction="inbound")


BEARER = {"Authorization": f"Bearer {TOKEN}"}


def test_a_call_is_stored_and_becomes_an_event_in_one_go(api: Api, caller: clients.Client) -> None:
    add_rule(api.hub, event=WEBHOOK_RECEIVED)
    answer = caller.post("/webhook/crm", json={"paid": True, "n": 7}, headers=BEARER | {"X-Trace": "abc"})
    assert answer.status_code == 202 and not answer.json()["duplicate"]
    [task] = answer.json()["tasks"]
    data = api.client("view").get(f"/api/v1/tasks/{task}").json()["event_data"]
    assert data["payload"] == {"paid": True, "n": 7} and data["service"] == "crm" and data["task_id"] is None
    assert data["headers"]["x-trace"] == "abc" and not {"authorization", "cookie"} & set(data["headers"])
    [row] = inbound(api)
    assert (row["service"], row["event"], row["status"], row["success"]) == ("crm", WEBHOOK_RECEIVED, 202, True)
    assert row["request_body"] == '{"paid":true,"n":7}'
    properties = api.hub.views.deliveries.get(row["id"])["properties"]
    assert properties["event_id"] == answer.json()["id"]
    assert not any(canary in str((data, row, properties)) for canary in CANARIES)


def test_without_a_rule_it_is_stored_all_the_same(api: Api, caller: clients.Client) -> None:
    answer = caller.post("/webhook/crm", json=[1], headers={"X-API-Key": TOKEN})
    assert answer.status_code == 202 and answer.json()["tasks"] == [] and len(inbound(api)) == 1


def test_two_equal_calls_are_two_calls_and_one_that_is_sent_again_is_one(api: Api, caller: clients.Client) -> None:
    add_rule(api.hub, event="hub.*")
    for _ in range(2):
        caller.post("/webhook/crm", json={"n": 1}, headers=BEARER)
    assert len(inbound(api)) == 2 == count(api.hub, "tasks")
    body = b'{"n": 2}'
    first, again = (caller.post("/webhook/crm", content=body, headers=signed(body, "msg-1")).json() for _ in range(2))
    assert again == {"id": first["id"], "duplicate": True, "tasks": []} and not first["duplicate"]
    keyed = [
        caller.post("/webhook/crm", json={}, headers=BEARER | {"Idempotency-Key": "k"}).json()["duplicate"]
        for _ in range(2)
    ]
    assert keyed == [False, True]
    assert len(inbound(api)) == 4 == count(api.hub, "tasks")


def test_of_many_copies_that_come_at_once_one_is_kept(api: Api, caller: clients.Client) -> None:
    body, gate = b'{"n": 3}', threading.Barrier(6)
    headers = signed(body, "msg-race")

    def call(_: int) -> bool:
        gate.wait(120)
        answer = clients.post(f"{api.url}/webhook/crm", content=body, headers=headers)
        assert answer.status_code == 202
        return bool(answer.json()["duplicate"])

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(call, range(6))) == [False] + [True] * 5
    assert len(inbound(api)) == 1


def test_only_the_inbound_secret_is_a_proof(api: Api, caller: clients.Client) -> None:
    add_service(api.hub, "http://127.0.0.1:9/", "bare", auth={"type": "bearer", "token": "outbound-token-canary"})
    body = b"{}"
    json_type = {"Content-Type": "application/json"}
    minute = timedelta(minutes=1)
    now = datetime.now(UTC)
    wrong: list[dict[str, str]] = [
        {},
        {"Authorization": "Bearer outbound-token-canary"},
        {"Authorization": f"Basic {TOKEN}"},
        {"X-API-Key": TOKEN + "x"},
        signed(body, "a", secret=OUTBOUND),
        signed(body, "a", at=now - 6 * minute),
        signed(body, "a", at=now + 6 * minute),
        signed(b"[]", "a"),
        signed(body, "a") | {"webhook-id": "b"},
        signed(body, "a") | {"webhook-signature": "v1,"},
        signed(body, "a") | {"webhook-signature": "nonsense"},
        signed(body, "a") | {"webhook-timestamp": "NaN"},
    ]
    for headers in wrong:
        found = problem(caller.post("/webhook/crm", content=body, headers=json_type | headers), 401)
        assert not any(canary in str(found) for canary in CANARIES)
    for headers in ({}, BEARER, {"Authorization": "Bearer outbound-token-canary"}):
        problem(caller.post("/webhook/bare", content=body, headers=json_type | headers), 401)
    assert not inbound(api)
    assert caller.post("/webhook/crm", content=body, headers=signed(body, "a", at=now - 4 * minute)).status_code == 202
    two = signed(body, "c")
    two["webhook-signature"] = "v1,AAAA " + two["webhook-signature"]
    assert caller.post("/webhook/crm", content=body, headers=two).status_code == 202, "one good signature is enough"


def test_guessing_is_slowed_down_and_only_for_who_guesses(api: Api, caller: clients.Client) -> None:
    answers = [caller.post("/webhook/crm", json={}, headers={"X-API-Key": "x"}) for _ in range(30)]
    assert {a.status_code for a in answers} == {401, 429} and answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    add_service(api.hub, "http://127.0.0.1:9/", "other", inbound={"token": "t2"})
    assert caller.post("/webhook/other", json={}, headers={"X-API-Key": "t2"}).status_code == 202


@pytest.mark.parametrize("proof", ["none", "token", "signature", "huge"])
def test_a_service_that_does_not_exist_is_indistinguishable_from_one_whose_proof_is_wrong(
    api: Api, caller: clients.Client, proof: str
) -> None:
    add_service(api.hub, "http://127.0.0.1:9/", "bare")
    add_service(
        api.hub,
        "http://127.0.0.1:9/",
        "off",
        inbound={"token": TOKEN, "signing_secret": SECRET},
        enabled=False,
    )
    body = b" " * 3_000_000 if proof == "huge" else b"{}"
    headers = {
        "none": {},
        "token": {"Authorization": "Bearer wrong"},
        "signature": signed(body, "a", secret=OUTBOUND),
        "huge": {"webhook-signature": "v1,AAAA"},
    }[proof]
    seen = set()
    for name in ("crm", "bare", "off", "nobody", "a" * 100):
        answer = caller.post(f"/webhook/{name}", content=body, headers=headers)
        seen.add((answer.status_code, answer.text, tuple((k, v) for k, v in answer.headers.items() if k != "date")))
    assert len(seen) == 1 and seen.pop()[0] == (413 if proof == "huge" else 401)


def test_a_right_signature_is_accepted_from_a_blocked_address(api: Api, caller: clients.Client) -> None:
    """Wrong signatures from the address are refused with bounded work, and do not lock out a signed sender."""
    wrong = "whsec_" + base64.b64encode(b"another-secret-of-some-32-bytes!").decode()
    refused = [caller.post("/webhook/crm", json={}).status_code for _ in range(40)]
    assert refused[-1] == 429, "the address is blocked"
    for n in range(60):
        sent = caller.post("/webhook/crm", content=b'{"n":1}', headers=signed(b'{"n":1}', f"right-{n}"))
        assert sent.status_code == 202, "right signatures do not use up the checks"
    forged = [
        caller.post("/webhook/crm", content=b"{}", headers=signed(b"{}", f"wrong-{n}", secret=wrong)).status_code
        for n in range(5)
    ]
    assert set(forged) == {429}
    assert caller.post("/webhook/crm", content=b"[]", headers=signed(b"[]", "last")).status_code == 202


def test_guessing_names_is_slowed_down_and_a_good_proof_is_accepted(api: Api, caller: clients.Client) -> None:
    answers = [caller.post(f"/webhook/guess-{n}", json={}) for n in range(160)]
    assert answers[0].status_code == 401 and answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert caller.post("/webhook/crm", json={}, headers=BEARER).status_code == 202


def test_an_inbound_token_that_the_body_repeats_does_not_stay(api: Api, caller: clients.Client) -> None:
    add_rule(api.hub, event=WEBHOOK_RECEIVED)
    body = {"token": TOKEN, "list": [f"Bearer {TOKEN}", {TOKEN: 1}], "n": 7}
    [task] = caller.post("/webhook/crm", json=body, headers=BEARER).json()["tasks"]
    stored = api.hub.db.all("SELECT data FROM events") + api.hub.db.all("SELECT sample FROM event_names")
    stored += api.hub.db.all("SELECT request_body, properties FROM deliveries")
    assert len(stored) == 3 and TOKEN not in str(stored)
    data = api.client("view").get(f"/api/v1/tasks/{task}").json()["event_data"]
    assert data["payload"] == {"token": "***", "list": ["Bearer ***", {"***": 1}], "n": 7}


def test_what_cannot_be_taken_is_refused_in_so_many_words(api: Api, caller: clients.Client) -> None:
    refused = caller.get("/webhook/crm", headers=BEARER)
    problem(refused, 405)
    assert refused.headers["Allow"] == "POST"
    problem(caller.post("/webhook/crm", content=b"a=1", headers=BEARER), 415)
    problem(caller.post("/webhook/crm", content=b"{", headers=BEARER | {"Content-Type": "application/json"}), 422)
    problem(caller.post("/webhook/crm", content=b"", headers=BEARER | {"Content-Type": "application/json"}), 422)
    problem(caller.post("/webhook/crm", json={}, headers=BEARER | {"webhook-id": "x" * 300}), 422, "webhook-id")
    nested = b"[" * 500 + b"]" * 500
    problem(caller.post("/webhook/crm", content=nested, headers=BEARER | {"Content-Type": "application/json"}), 422)
    problem(caller.post("/webhook/crm", json="x" * 2_000_000, headers=BEARER), 413)
    problem(caller.post("/webhook/crm", json="x" * 10_000_000, headers=BEARER), 413)
    api.hub.registry.services.enable("crm", False)
    problem(caller.post("/webhook/crm", json={}, headers=BEARER), 403)
    assert not inbound(api) and not count(api.hub, "event_keys")


def test_a_chain_that_goes_round_in_circles_ends(api: Api, caller: clients.Client) -> None:
    """A rule that answers every call by a request, and a service that answers every request by a call."""
    add_rule(api.hub, event=WEBHOOK_RECEIVED)
    headers = dict(BEARER)
    for depth in range(1, api.hub.settings.max_depth + 1):
        answer = caller.post("/webhook/crm", json={"n": depth}, headers=headers).json()
        assert len(answer["tasks"]) == 1, depth
        headers = BEARER | {"X-Hub-Task": str(answer["tasks"][0])}
    last = caller.post("/webhook/crm", json={"n": 99}, headers=headers)
    assert last.status_code == 202 and last.json()["tasks"] == []
    row = api.hub.views.deliveries.get(inbound(api)[0]["id"])
    assert row["properties"]["chain_cut_at"] == api.hub.settings.max_depth + 1, "stored, and it says why it ends here"
    assert str(row["task_id"]) == headers["X-Hub-Task"]


def test_a_task_of_another_service_is_no_ones_to_name(api: Api, caller: clients.Client) -> None:
    add_service(api.hub, "http://127.0.0.1:9/", "other")
    add_rule(api.hub, service="other")
    [task] = emit(api.hub)
    for given in (str(task), "99999", "x", "9" * 30, "-1"):
        assert caller.post("/webhook/crm", json={}, headers=BEARER | {"X-Hub-Task": given}).status_code == 202
    assert all(row["task_id"] is None for row in inbound(api))


def test_masked_paths_and_secrets_in_the_body_are_not_kept_in_the_log(api: Api) -> None:
    add_service(api.hub, "http://127.0.0.1:9/", inbound={"token": TOKEN}, mask=["card.number"])
    body = {"card": {"number": "4111"}, "echo": TOKEN}
    assert api.client(None).post("/webhook/crm", json=body, headers=BEARER).status_code == 202
    text = inbound(api)[0]["request_body"]
    assert "4111" not in text and TOKEN not in text and "***" in text


def test_when_the_event_cannot_be_kept_the_call_is_not_either(api: Api, caller: clients.Client) -> None:
    """One transaction: nothing half-written, and the id is free for the next try."""
    add_rule(api.hub, event=WEBHOOK_RECEIVED)
    api.hub.db.run("ALTER TABLE deliveries ADD CONSTRAINT no_inbound CHECK (direction <> 'inbound') NOT VALID")
    body = b'{"n": 4}'
    answer = caller.post("/webhook/crm", content=body, headers=signed(body, "msg-4"))
    assert answer.status_code == 500 and count(api.hub, "events") == 0 == count(api.hub, "event_keys")
    api.hub.db.run("ALTER TABLE deliveries DROP CONSTRAINT no_inbound")
    assert caller.post("/webhook/crm", content=body, headers=signed(body, "msg-4")).json()["duplicate"] is False


def test_an_answer_by_webhook_knows_the_task_also_when_it_is_delivered(api: Api, caller: clients.Client) -> None:
    with HttpTarget() as target:
        api.hub.lease.start()
        api.hub.registry.services.update("crm", {"base_url": target.url})
        add_rule(api.hub)
        [task] = emit(api.hub)
        assert attempt(api.hub, task) == "delivered"
        header = target.seen[0].headers["x-hub-task"]
        assert caller.post("/webhook/crm", json={}, headers=BEARER | {"X-Hub-Task": header}).status_code == 202
        assert inbound(api)[0]["task_id"] == task
