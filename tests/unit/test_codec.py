"""JSON at the edges: what is stored can always be looked at."""

from __future__ import annotations

import json

import pytest

from hub.codec import NESTED, deeper_than, readable


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "text", "", [], {"a": [1, {"b": None}]}, 10**100])
def test_what_is_json_is_read(value: object) -> None:
    assert readable(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "not JSON",
        '{"a": "\\ud800"}',
        '{"a": 1e999}',
        "NaN",
        "9" * 5000,
        "[" * (NESTED + 1) + "]" * (NESTED + 1),
        "[" * 100_000,
    ],
)
def test_what_cannot_be_written_out_again_is_shown_as_it_is(text: str) -> None:
    """A listing of a hundred rows must not fail because somebody edited one of them by hand."""
    assert readable(text) == text


def test_none_stays_none() -> None:
    assert readable(None) is None


@pytest.mark.parametrize(("value", "depth"), [(1, 0), ("[[", 0), ([], 1), ({"a": 1}, 1), ([[], {"a": [1]}], 3)])
def test_depth_counts_objects_and_arrays(value: object, depth: int) -> None:
    assert not deeper_than(value, depth) and (depth == 0 or deeper_than(value, depth - 1))
