"""Masking what the log keeps: the secret goes, the rest stays readable."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from hub.domain.paths import (
    MISSING,
    JsonStrings,
    dig,
    mask_body,
)
from hub.models import JSON
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


def test_a_json_string_is_parsed_once_for_all_who_look_into_it() -> None:
    """Read twice, a string of more than half the limit would count as plain text the second time."""
    text = json.dumps({"pad": "x" * 700_000, "a": 1, "b": json.dumps({"c": 2})})
    strings = JsonStrings()
    found = [dig({"other": text}, ("other", *path.split(".")), strings) for path in ("a", "b.c", "a", "b.c")]
    assert found == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "pad": "%s"}' % ("x" * JsonStrings.MAX_CHARS),
        '{"a": 1, "pad": [%s0]}' % ("0," * JsonStrings.MAX_NODES),
        '{"a": 1, "pad": ' + "[" * 300 + "]" * 300 + "}",
        '{"a": 1' + " " * 100,
    ],
)
def test_a_json_string_beyond_the_limits_is_plain_text(text: str) -> None:
    assert dig({"other": text}, ("other", "a")) is MISSING


def test_the_limits_count_for_all_strings_of_an_event_together() -> None:
    texts = [json.dumps({"a": i, "pad": "x" * 300_000}) for i in range(5)]
    strings = JsonStrings()
    assert [dig(texts, (str(i), "a"), strings) for i in range(5)] == [0, 1, 2, MISSING, MISSING]
