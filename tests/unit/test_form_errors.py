"""Errors of forms in the words of the form."""

from __future__ import annotations

from typing import Any

import pytest

from hub.config.definitions import RuleSpec, ServiceSpec, parse_spec
from hub.errors import ConfigError
from hub.web.console.form_errors import RULE_LABELS, form_errors, service_errors

BASE = {"name": "crm", "type": "rest", "base_url": "https://crm.example.org"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": ""}, {"name": "Name is required"}),
        ({"timeout": "soon"}, {"timeout": "Timeout must be a number"}),
        ({"max_retries": "2.5"}, {"max_retries": "Tries per attempt must be a whole number"}),
        ({"rate_limit": "0"}, {"rate_limit": "Rate limit must be more than 0"}),
        ({"auth": {"type": "bearer", "token": None}}, {"auth_token": "Token or key is required"}),
        ({"headers": {"a b": "x"}}, {"headers": "Headers has characters that are not allowed here"}),
        (
            {"base_url": "", "timeout": "soon"},
            {"base_url": "Address is required", "timeout": "Timeout must be a number"},
        ),
    ],
)
def test_errors_name_the_field_of_the_form_and_say_what_to_do(
    changes: dict[str, Any], expected: dict[str, str]
) -> None:
    """All of them, in the order of the form."""
    document = BASE | changes
    with pytest.raises(ConfigError) as raised:
        parse_spec(ServiceSpec, document)
    found = service_errors(raised.value, document)
    assert [(e.field, e.text) for e in found] == list(expected.items())


def test_an_error_of_no_field_is_shown_as_it_is() -> None:
    """Nothing is lost because the form has no field for it."""
    assert [(e.field, e.text) for e in form_errors(ConfigError("there is a rule 'a' already"), RULE_LABELS)] == [
        ("", "there is a rule 'a' already")
    ]


def test_a_wrong_template_is_an_error_of_the_payload() -> None:
    """With the place that is wrong."""
    with pytest.raises(ConfigError) as raised:
        parse_spec(RuleSpec, {"name": "a", "event": "b", "service": "c", "payload": '{"a":'})
    (found,) = form_errors(raised.value, RULE_LABELS)
    assert found.field == "payload"
    assert found.text.startswith("Payload: not JSON") and "line 1" in found.text
