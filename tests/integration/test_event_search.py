"""Search in the event log on a real database: by search keys, by reading, in pages, with limits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from hub.app.lifecycle import Hub
from hub.domain.search_keys import BLOCK
from hub.domain.search_query import parse_query
from hub.errors import ConflictError
from hub.models import Event
from hub.store.audit import Actor, acting
from hub.store.views.event_search import Found
from tests.support.http_target import HttpTarget
from tests.support.hubs import add_rule, add_service, attempt, emit


def search(hub: Hub, text: str, **kwargs: Any) -> Found:
    return hub.views.event_search.search(parse_query(text, datetime.now(UTC)), **kwargs)


def found(hub: Hub, text: str) -> list[str]:
    """Ids of all events of a search, oldest first, whatever the pages."""
    ids: list[str] = []
    before = None
    while True:
        page = search(hub, text, before=before, limit=3)
        ids += [row["id"] for row in page.rows]
        if page.next is None:
            return ids[::-1]
        before = page.next


def accept(hub: Hub, *data: Any, name: str = "e") -> None:
    """Events with the ids 0, 1, 2..."""
    hub.intake.handle_events([Event(name, each, str(i)) for i, each in enumerate(data)])


def test_indexed_and_other_values_are_found_alike(hub: Hub) -> None:
    accept(hub, *({"userid": n % 3, "other": {"email": f"u{n % 2}@x.y"}} for n in range(12)))
    assert found(hub, "userid:1") == ["1", "4", "7", "10"]
    assert found(hub, 'other.email:"u1@x.y"') == ["1", "3", "5", "7", "9", "11"]
    assert found(hub, "userid:1 other.email:u1@x.y") == ["1", "7"]
    assert found(hub, "userid:9") == [] == found(hub, "other.email:u1")
    assert search(hub, "userid:1").indexed and not search(hub, "other.email:u1@x.y").indexed


def test_values_that_json_escapes_and_null_are_found(hub: Hub) -> None:
    accept(hub, {"a": 'say "hi"'}, {"a": None, "userid": None}, {"a": "é\n"}, {"userid": True}, {"a": 1.5})
    assert found(hub, 'a:"say \\"hi\\""') == ["0"] and found(hub, 'a:"é\n"') == ["2"]
    assert found(hub, "a:null") == ["1"] == found(hub, "userid:null")
    assert found(hub, "userid:true") == ["3"] and found(hub, "a:1.5") == ["4"]


def test_a_search_walks_all_blocks(hub: Hub) -> None:
    """Events of a user lie far apart; numbers have gaps."""
    for n in range(4):
        hub.intake.handle_event(Event("e", {"userid": 42, "n": n}, str(n)))
        hub.intake.handle_event(Event("e", {"userid": 43, "n": n}))
        hub.db.run("SELECT setval('events_id_seq', nextval('events_id_seq') + %s)", [BLOCK * 300 * n])
    assert found(hub, "userid:42") == ["0", "1", "2", "3"]
    page = search(hub, "userid:42", limit=2)
    assert [row["id"] for row in page.rows] == ["3", "2"] and page.next is not None
    assert page.high - page.low > BLOCK * 800


def test_events_of_before_a_path_was_indexed_are_found(hub: Hub) -> None:
    """After an upgrade, and when HUB_SEARCH_KEYS names another path."""
    accept(hub, {"userid": 42}, {"userid": 42}, {"userid": 7})
    hub.db.run("UPDATE events SET search_keys = NULL WHERE uid <> '2'")
    hub.db.run("UPDATE search_paths SET since_id = (SELECT id FROM events WHERE uid = '2')")
    hub.intake.handle_event(Event("e", {"userid": 42}, "3"))
    assert found(hub, "userid:42") == ["0", "1", "3"]


def test_a_status_a_service_and_an_error_are_of_one_task(hub: Hub, target: HttpTarget) -> None:
    add_service(hub, target.url, max_attempts=1)
    add_service(hub, "http://127.0.0.1:9", name="lms", max_attempts=1)
    add_rule(hub)
    add_rule(hub, "r2", "e", "lms")
    for n in range(2):
        emit(hub, key=str(n), data={"n": n})
    emit(hub, "other", key="2")
    first = [row["id"] for row in hub.views.tasks.list()][2:]
    assert sorted(attempt(hub, task) for task in first) == ["delivered", "failed"]
    assert found(hub, "status:delivered") == ["0"] == found(hub, "status:delivered service:crm")
    assert found(hub, "status:dead service:lms") == ["0"] == found(hub, "status:failed")
    assert found(hub, "status:dead service:crm") == [] == found(hub, "status:delivered service:lms")
    assert found(hub, "status:pending") == ["1"] and found(hub, "status:unmatched") == ["2"]
    assert found(hub, "service:crm") == ["0", "1"] and found(hub, "status:204 service:crm") == ["0"]
    assert found(hub, 'error:"REFUSED" n:0') == ["0"] and found(hub, "error:refused n:1") == []
    assert found(hub, "event:oth*") == ["2"] and found(hub, "id:1 status:pending") == ["1"]
    assert found(hub, "id:1 status:dead") == [] and found(hub, f"task:{first[0]}") == ["0"]


def test_times_bound_a_search(hub: Hub) -> None:
    accept(hub, *({"userid": 1, "n": n, "x": "y"} for n in range(4)))
    hub.db.run("UPDATE events SET created_at = created_at - interval '3 days' WHERE uid < '2'")
    for text in ("userid:1", "x:y"):
        assert found(hub, f"{text} since:1d") == ["2", "3"] and found(hub, f"{text} until:1d") == ["0", "1"]
    assert found(hub, "id:1 since:1d") == []


def test_a_masked_value_is_not_found(hub: Hub) -> None:
    """A search that finds it would tell it."""
    add_service(hub, "http://127.0.0.1:9", mask=["userid", "other.email"])
    add_rule(hub)
    accept(hub, {"userid": 42, "other": {"email": "a@b.c"}, "courseid": 1})
    assert found(hub, "userid:42") == [] == found(hub, "other.email:a@b.c")
    assert found(hub, "courseid:1") == ["0"]


def test_a_search_can_be_cancelled_and_goes_on_later(hub: Hub) -> None:
    accept(hub, *({"n": n, "x": "y"} for n in range(5)))
    page = search(hub, "x:y", cancelled=lambda: True)
    assert page.rows == [] and page.next is not None
    assert len(search(hub, "x:y", before=page.next).rows) == 5
    short = search(hub, "x:y", seconds=0)
    assert len(short.rows) == 5 and short.next is None and short.read >= 5


def test_one_search_per_person_reads_the_log(hub: Hub) -> None:
    """Searches by search keys and those of others go on."""
    accept(hub, {"x": "y", "userid": 1})
    seen: list[object] = []

    def other() -> Iterator[bool]:
        with acting(Actor("ann", "user")):
            with pytest.raises(ConflictError, match="a search of yours"):
                search(hub, "x:y")
            seen.append(len(search(hub, "userid:1").rows))
        with acting(Actor("bob", "user")):
            seen.append(len(search(hub, "x:y").rows))
        yield False

    once = other()
    with acting(Actor("ann", "user")):
        assert len(search(hub, "x:y", cancelled=lambda: next(once, False)).rows) == 1
        assert seen == [1, 1] and len(search(hub, "x:y").rows) == 1
