"""The OpenAPI document is true: schemathesis sends what it allows, and what it forbids, and finds no lie.

Bounded and deterministic: the same requests in every run.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from hub.app.lifecycle import Hub
from tests.support.api import Api
from tests.support.hubs import add_rule, add_service, add_source, emit

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_EXAMPLES = 5


def test_the_document_is_complete(api: Api) -> None:
    """Every endpoint is in it, with its scope, its problems and the shape of its answer."""
    document = api.client("view").get("/api/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, item in document["paths"].items():
        for method, operation in item.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            good = [v for k, v in operation["responses"].items() if k.startswith("2")]
            assert good and all(v["content"] for v in good), where
            if path.startswith("/api/"):
                [scheme] = operation["security"]
                assert scheme["token"][0] in ("ingest", "view", "manage"), where
                for status in ("401", "403", "422", "429", "503"):
                    assert list(operation["responses"][status]["content"]) == ["application/problem+json"], where
    ids = [o["operationId"] for item in document["paths"].values() for o in item.values()]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', str(document).replace("'", '"')))
    assert references <= set(document["components"]["schemas"]), "nothing refers to nowhere"


def provide(hub: Hub) -> None:
    """What the requests find, also after one of them has renamed or deleted it."""
    names = [service.name for service in hub.configuration.services()]
    if "crm" not in names:
        add_service(hub, "http://127.0.0.1:9/", inbound={"token": "inbound-token"})
    if "r1" not in [rule.name for rule in hub.configuration.rules()]:
        add_rule(hub)
    if "crm" not in [source.name for source in hub.registry.sources.sources()]:
        add_source(hub, name="crm")
    hub.registry.services.enable("crm", True)
    hub.db.run(
        "INSERT INTO dead_letters (id, task_id, event_id, event_uid, event, event_data, rule_id, service_id, attempts,"
        " reason, accepted_at) OVERRIDING SYSTEM VALUE VALUES (1, 1, 1, 'u', 'e', '{}', 1, 1, 5, 'attempts', now())"
        " ON CONFLICT DO NOTHING"
    )
    hub.db.run(
        "INSERT INTO deliveries (direction, service, success, outcome)"
        " SELECT 'outbound', 'crm', true, 'success' WHERE NOT EXISTS (SELECT FROM deliveries)"
    )


def real_ones(path: str) -> dict[str, Any]:
    """Path parameters that exist."""
    name = "r1" if "/rules" in path else "consume_responses_task" if "/schedules" in path else "crm"
    return {"name": name, "service": "crm", "task_id": 2, "dead_letter_id": 1, "delivery_id": 1}


def ask(api: Api, operation: Any, mode: Any, token: str, seen: Counter[int]) -> None:
    """Send what one operation allows, or forbids, and check the answers."""
    there = real_ones(operation.path)

    @settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def send(case: Any, real: bool) -> None:
        if real and case.path_parameters:
            case.path_parameters = {k: there.get(k, v) for k, v in case.path_parameters.items()}
            case.headers.pop("If-Match", None)
        secret = "inbound-token" if operation.path.startswith("/webhook/") else token
        answer = case.call_and_validate(
            base_url=api.url, headers={"Authorization": f"Bearer {secret}"}, checks=CHECKS, timeout=120
        )
        seen[answer.status_code] += 1

    try:
        send()
    except Unsatisfiable:
        assert mode is schemathesis.GenerationMode.NEGATIVE  # nothing can be sent that is wrong


@pytest.mark.filterwarnings("ignore")
def test_schemathesis_finds_no_fault(api: Api) -> None:
    provide(api.hub)
    for n in range(3):
        emit(api.hub, data=n)
    client = api.client("manage")
    token = client.headers["Authorization"].removeprefix("Bearer ")
    schema = schemathesis.openapi.from_dict(client.get("/api/openapi.json").json())
    seen: Counter[int] = Counter()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        for mode in schemathesis.GenerationMode:
            provide(api.hub)
            ask(api, result.ok(), mode, token, seen)
    assert {200, 201, 202, 401, 404, 422} <= set(seen), seen
    assert sum(n for status, n in seen.items() if status < 300) > sum(seen.values()) / 4, seen
