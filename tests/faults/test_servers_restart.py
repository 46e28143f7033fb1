"""RabbitMQ and PostgreSQL restarted, and queues deleted, in mid-run: everything ends, in at most five attempts."""

from __future__ import annotations

from collections import Counter

import pika
import pytest
from pydantic import SecretStr

from hub.app.lifecycle import Hub, build
from hub.settings import Settings
from hub.store.migrate import migrate
from tests.faults.source import Source
from tests.support.databases import PostgresServer
from tests.support.http_target import HttpTarget, Reply
from tests.support.hubs import add_rule, add_service, count, counts_are_exact
from tests.support.rabbit import RabbitNode
from tests.support.waiting import eventually
from tests.support.workers import workers

pytestmark = pytest.mark.fault


def check(hub: Hub, target: HttpTarget, source: Source) -> None:
    times = Counter(seen.headers["idempotency-key"] for seen in target.seen)
    assert max(times.values()) <= 5
    delivered = {seen.json()["n"] for seen in target.seen}
    assert delivered == set(range(source.accepted)), "every accepted event arrived"
    assert count(hub, "delivered") == source.accepted and count(hub, "dead_letters") == 0
    assert count(hub, "running") == count(hub, "queued") == 0 and counts_are_exact(hub)


def more(source: Source, target: HttpTarget) -> None:
    """Events are accepted and delivered again."""
    accepted, seen = source.accepted, len(target.seen)
    eventually(lambda: source.accepted > accepted + 30, "more is accepted")
    eventually(lambda: len(target.seen) > seen + 30, "more is delivered")


def test_rabbitmq_killed_and_started_again_and_its_queue_deleted(
    settings: Settings, rabbitmq: RabbitNode, target: HttpTarget
) -> None:
    """An event is accepted all the same: the ledger has it."""
    settings = settings.model_copy(update={"broker_url": SecretStr(rabbitmq.url)})
    target.default = Reply(204, delay=0.005)
    with build(settings, role="web") as hub, workers(settings) as group:
        add_service(hub, target.url)
        add_rule(hub)
        source = Source(hub)
        more(source, target)
        rabbitmq.kill()
        rabbitmq.start()
        more(source, target)
        connection = pika.BlockingConnection(pika.URLParameters(rabbitmq.url))
        connection.channel().queue_delete(hub.queues["dispatch"])
        connection.close()
        more(source, target)
        source.stop()
        eventually(lambda: count(hub, "tasks") == 0, "every task ends")
        assert source.refusals == []
        group.stop()
        check(hub, target, source)


def test_postgresql_restarted_and_killed(settings: Settings, postgres: PostgresServer, target: HttpTarget) -> None:
    """No attempt is spent and no circuit moved: it is the hub's own fault."""
    settings = settings.model_copy(update={"database_url": SecretStr(postgres.url)})
    target.default = Reply(204, delay=0.005)
    with build(settings, role="web", check=False) as hub:
        migrate(hub.db)
        hub.configuration.listen()
        add_service(hub, target.url)
        add_rule(hub)
        with workers(settings) as group:
            source = Source(hub)
            more(source, target)
            postgres.restart()
            more(source, target)
            postgres.kill()
            more(source, target)
            postgres.stop()
            eventually(lambda: len(source.refusals) > 1, "nothing is accepted without a database")
            postgres.start()
            more(source, target)
            source.stop()
            eventually(lambda: count(hub, "tasks") == 0, "every task ends")
            group.stop()
        check(hub, target, source)
        rows = hub.db.all("SELECT state, failures FROM breakers")
        assert rows == [{"state": "closed", "failures": 0}]
        spent = hub.db.all("SELECT max(attempt) AS most FROM deliveries WHERE success")
        assert spent[0]["most"] <= 2
