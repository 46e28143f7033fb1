"""Which placeholders a lookup answers, and for which ids."""

from __future__ import annotations

import pytest

from hub.domain.lookups import named, number, wanted


def test_placeholders_with_the_names_of_lookups_are_found() -> None:
    found = named(
        '{"a": "{{ user.email }}", "b": {{course.id}}, "c": "{{userid}} {{users.x}}"}', "/x/{{cohorts}}", None
    )
    assert found == {"user.email", "course.id", "cohorts"}


def test_a_member_of_the_data_wins() -> None:
    paths = frozenset({"user.email", "course.id"})
    assert wanted(paths, {"user": None}) == {"course.id"}
    assert wanted(paths, ["no object"]) == frozenset()


@pytest.mark.parametrize(
    ("value", "id_"), [(5, 5), ("5", 5), (0, None), ("0", None), (True, None), (None, None), ("x", None), (-1, None)]
)
def test_an_id_is_a_positive_number_or_its_text(value: object, id_: int | None) -> None:
    assert number(value) == id_
