"""Reading a Moodle log store when something fails: errors, time limits, rights, threads; and replay of its past."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from hub.app.lifecycle import Hub
from hub.app.sources import positions_of
from hub.errors import SourceError
from hub.operations.sources import replay_source
from hub.store.source_positions import status
from tests.support.hubs import add_rule
from tests.support.moodle_readers import drain, poller, read_ids, source_of
from tests.support.moodle_site import MoodleSite, log_row
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prefix": "other_"}, "check the database's name and the table prefix"),
        ({"url": "PASSWORD"}, "password|denied|authentication"),
        ({"url": "PORT"}, "(?i)connection (to|failed|refused)"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(
    hub: Hub, moodle: MoodleSite, change: dict[str, Any], words: str
) -> None:
    if change.get("url") == "PASSWORD":
        if moodle.kind == "postgresql" and "@/" in moodle.url:
            pytest.skip("the private server trusts its socket")
        change = {"url": moodle.url.replace("reader-s3cret", "wrong-s3cret")}
    if change.get("url") == "PORT":
        scheme = moodle.url.partition(":")[0]
        change = {"url": f"{scheme}://u:wrong-s3cret@127.0.0.1:9/moodle"}
    reader = poller(hub, source_of(hub, moodle, **change))
    with pytest.raises(SourceError, match=words) as e:
        reader.look()
    assert "s3cret" not in str(e.value)


def test_a_query_that_takes_too_long_is_ended(hub: Hub, moodle: MoodleSite) -> None:
    """On the server: a query that goes on after its reader is gone would burden Moodle."""
    from hub.sources.moodle_database import MoodleDatabase

    source = source_of(hub, moodle, query_timeout=1)
    with closing(MoodleDatabase(source, hub.settings)) as database:
        sleep = "SELECT sleep(30)" if moodle.kind == "mariadb" else "SELECT pg_sleep(30)"
        with pytest.raises(SourceError, match="took too long"):
            database.query(sleep)
        assert database.query("SELECT 1") == [(1,)]


def test_the_hub_cannot_write_to_moodle(hub: Hub, moodle: MoodleSite) -> None:
    from hub.sources.moodle_database import MoodleDatabase

    moodle.insert([log_row()])
    if moodle.kind == "postgresql":
        moodle.run("GRANT ALL ON ALL TABLES IN SCHEMA public TO hubtest_reader")
    else:
        moodle.run("GRANT ALL ON mdl_logstore_standard_log TO hubtest_reader@'%'")
    with (
        closing(MoodleDatabase(source_of(hub, moodle), hub.settings)) as database,
        pytest.raises(SourceError, match=r"(?i)read.only"),
    ):
        database.query("DELETE FROM mdl_logstore_standard_log")


def test_threads_follow_the_definitions(hub: Hub, moodle_pg: MoodleSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source is read when it is added, not while it is disabled, and from where it was when it is enabled again."""
    monkeypatch.setattr("hub.inbound.source_threads._REFRESH", 0.05)
    hub.start_sources()
    source_of(hub, moodle_pg, poll_interval=0.05)
    moodle_pg.insert([log_row()])
    eventually(lambda: len(read_ids(hub)) == 1)
    hub.registry.sources.enable("site", False)
    eventually(lambda: hub.db.one("SELECT lease_until FROM source_positions") == {"lease_until": None})
    moodle_pg.insert([log_row(), log_row()])
    assert len(read_ids(hub)) == 1
    hub.registry.sources.enable("site", True)
    eventually(lambda: len(read_ids(hub)) == 3)


def test_a_failure_is_recorded_and_reading_goes_on(hub: Hub, moodle_pg: MoodleSite) -> None:
    hub.start_sources()
    source = source_of(hub, moodle_pg, poll_interval=0.05)
    moodle_pg.insert([log_row()])
    eventually(lambda: len(read_ids(hub)) == 1)
    moodle_pg.run("REVOKE SELECT ON mdl_logstore_standard_log FROM hubtest_reader")
    eventually(lambda: status(hub.db)[0]["state"] == "failing")
    assert "needs SELECT" in status(hub.db)[0]["last_error"]
    moodle_pg.insert([log_row()])
    moodle_pg.run("GRANT SELECT ON mdl_logstore_standard_log TO hubtest_reader")
    eventually(lambda: len(read_ids(hub)) == 2)
    eventually(lambda: status(hub.db)[0]["state"] == "up_to_date")
    assert positions_of(hub, source).waiting_tasks() == 2


def test_a_replay_feeds_the_past_to_one_rule_once(hub: Hub, moodle_pg: MoodleSite) -> None:
    """Rows of before the source began, and rows that the rule has had already; a second replay does nothing."""
    now = int(hub.clock.read().timestamp())
    old = moodle_pg.insert(
        [log_row("\\core\\event\\user_created", userid=2 + n % 2, timecreated=now - 9000 + n) for n in range(10)]
    )
    source = source_of(hub, moodle_pg, start=old[7], gap_age=1)
    add_rule(hub, "late", event="\\core\\event\\user_*", conditions={"userid": 2})
    hub.registry.rules.enable("late", False)
    drain(poller(hub, source))
    assert hub.db.one("SELECT count(*) AS n FROM tasks") == {"n": 4}  # three rows for r1, one of them for both
    since, until = datetime.fromtimestamp(now - 9000, UTC), datetime.fromtimestamp(now - 8991, UTC)
    counted = replay_source(hub, "site", "late", since, until, dry_run=True)
    assert (counted.read, counted.matched, counted.skipped, counted.tasks) == (10, 5, 1, 4)
    assert hub.db.one("SELECT count(*) AS n FROM tasks") == {"n": 4}
    done = replay_source(hub, "site", "late", since, until, rate=1000)
    assert (done.skipped, done.tasks) == (1, 4)
    late = hub.configuration.rule("late").id
    uids = hub.db.all(
        "SELECT e.uid FROM tasks t JOIN events e ON e.id = t.event_id WHERE t.rule_id = %s ORDER BY e.uid", [late]
    )
    assert [int(row["uid"].split(":")[1]) for row in uids] == [old[n] for n in (0, 2, 4, 6, 8)]
    assert hub.db.one("SELECT count(*) AS n FROM tasks") == {"n": 8}
    again = replay_source(hub, "site", "late", since, until)
    assert (again.skipped, again.tasks) == (5, 0)
    hub.db.run("DELETE FROM event_keys")  # a day later
    assert replay_source(hub, "site", "late", since, until).tasks == 0
    moodle_pg.insert([log_row("\\core\\event\\user_created", timecreated=now + 60)])
    assert replay_source(hub, "site", "late", since, datetime.fromtimestamp(now + 99, UTC)).read == 10
