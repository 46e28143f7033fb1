"""Listings for people, pipes and `--json`."""

from __future__ import annotations

import pytest

from tests.integration.command_line.commands import EVENT, Hub, read

LISTINGS = (
    "service list",
    "rule list",
    "tasks list",
    "tasks failures",
    "dlq list",
    "log list",
    "log runs",
    "breaker list",
    "user list",
    "token list",
)


def test_an_empty_hub_lists_empty_arrays_and_tells_people_what_is_next(hub: Hub) -> None:
    """Scripts get `[]`; a person gets a hint on stderr, and stdout stays empty for the next in the pipe."""
    for listing in LISTINGS:
        assert read(hub, *listing.split()) == [], listing
        said = hub(*listing.split())
        assert said.stdout == "" and said.stderr.strip() not in ("", "nothing matches the filter"), listing


@pytest.mark.parametrize(
    "listing",
    [
        "rule list --service nobody",
        "tasks list --state held",
        "tasks list --failed",
        "tasks list --before 1",
        "tasks failures --service nobody",
        "dlq list --since 1h",
        "dlq list --reason expired",
        "log list --task 0",
        "log list --failed",
        "log list --until 1h",
        "log runs --failed",
        "log runs --task housekeeping_task",
    ],
)
def test_a_filter_that_leaves_nothing_does_not_say_that_there_is_nothing(hub: Hub, listing: str) -> None:
    """Who has mistyped a name and is told "no rules yet" looks in the wrong place."""
    said = hub(*listing.split())
    assert said.stdout == "" and said.stderr.strip() == "nothing matches the filter"


def test_in_a_pipe_a_row_is_one_line_and_wide_cells_are_cut(hub: Hub, crm: str) -> None:
    """`hub tasks list | grep` must find a task as one line, whatever its error's length."""
    hub("rule", "edit", "users", "--endpoint", "/" + "x" * 500)
    hub("emit", "--name", "a\\" + "y" * 200, "--data", "{}")
    hub("emit", "--name", EVENT, "--data", "{}")
    for listing in ("rule list", "tasks list", "service list", "breaker list"):
        lines = hub(*listing.split()).stdout.splitlines()
        assert len(lines) == 2 and max(map(len, lines)) < 500, listing
