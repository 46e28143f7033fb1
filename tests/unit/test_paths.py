"""Masking what the log keeps: the secret goes, the rest stays readable."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from hub.models import JSON
from hub.paths import mask_body
from tests.unit.samples import values


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["pw"], {"pw": "***", "user": {"token": "t", "tags": [1, 2]}, "rows": [{"k": 1}, {"k": 2}]}),
        (["user.token", "no.x"], {"pw": "p", "user": {"token": "***", "tags": [1, 2]}, "rows": [{"k": 1}, {"k": 2}]}),
        (["user"], {"pw": "p", "user": "***", "rows": [{"k": 1}, {"k": 2}]}),
        (["user.*", "rows.k"], {"pw": "p", "user": {"token": "***", "tags": "***"}, "rows": [{"k": "***"}] * 2}),
        (["user.tags.0"], {"pw": "p", "user": {"token": "t", "tags": ["***", 2]}, "rows": [{"k": 1}, {"k": 2}]}),
        (["rows.1.k"], {"pw": "p", "user": {"token": "t", "tags": [1, 2]}, "rows": [{"k": 1}, {"k": "***"}]}),
        (["rows.*"], {"pw": "p", "user": {"token": "t", "tags": [1, 2]}, "rows": ["***", "***"]}),
    ],
)
def test_configured_paths_are_masked_and_nothing_else(paths: list[str], expected: JSON) -> None:
    text = json.dumps({"pw": "p", "user": {"token": "t", "tags": [1, 2]}, "rows": [{"k": 1}, {"k": 2}]})
    assert json.loads(mask_body(text, paths)) == expected


def test_a_secret_in_a_json_string_is_masked() -> None:
    assert json.loads(mask_body('{"other": "{\\"pin\\":1,\\"a\\":2}"}', ["other.pin"])) == {
        "other": '{"pin":"***","a":2}'
    }


def test_text_that_is_not_json_is_masked_as_a_whole() -> None:
    """Where its secrets are nobody can tell."""
    assert mask_body("password=hunter2", ["password"]) == "***"
    assert mask_body("password=hunter2", []) == "password=hunter2"


@given(values, values)
def test_a_masked_value_is_gone_wherever_it_was(secret: JSON, rest: JSON) -> None:
    masked = json.loads(mask_body(json.dumps({"a": {"b": [{"c": secret}]}, "rest": rest}), ["a.b.c"]))
    assert masked == {"a": {"b": [{"c": "***"}]}, "rest": rest}
