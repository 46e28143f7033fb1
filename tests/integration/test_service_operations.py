"""Saving a service declares its response queue; stored bytes can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pika
import pytest

from hub.app.lifecycle import build
from hub.config.definitions import ServiceSpec
from hub.operations.raw_message import hex_dump
from hub.operations.services import add_service, update_service
from hub.settings import Settings
from tests.support.proxy import unused_port

HUB = str(Path(sys.executable).with_name("hub"))


def exists(url: str, queue: str) -> bool:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        connection.channel().queue_declare(queue, passive=True)
        return True
    except pika.exceptions.ChannelClosedByBroker:
        return False
    finally:
        if connection.is_open:
            connection.close()


def spec(url: str, **fields: object) -> ServiceSpec:
    return ServiceSpec.model_validate({"name": "bus", "type": "amqp", "base_url": f"{url}?routing_key=x", **fields})


def test_saving_a_service_declares_its_response_queue(settings: Settings, broker_url: str, queue_prefix: str) -> None:
    """A response that is published before the first consumption finds its queue."""
    first, second = f"{queue_prefix}.answers", f"{queue_prefix}.courses"
    with build(settings) as hub:
        assert add_service(hub, spec(broker_url, response_queue=first)).note is None
        assert exists(broker_url, first) and not exists(broker_url, second)
        assert update_service(hub, "bus", {"response_queue": second}).note is None
        assert exists(broker_url, second)


def test_a_broker_that_is_away_does_not_stop_the_change(settings: Settings) -> None:
    """The service is saved, and the person is told what is still to be done."""
    with build(settings) as hub:
        away = f"amqp://guest:s3cr3t-pw@127.0.0.1:{unused_port()}/"
        saved = add_service(hub, spec(away, response_queue="answers"))
        assert hub.configuration.service("bus").response_queue == "answers"
    assert saved.note is not None and "'answers' is not declared yet" in saved.note
    assert "s3cr3t" not in saved.note


@pytest.mark.parametrize("door", ["service add", "apply"])
def test_the_command_line_declares_it_too(
    door: str, hub_env: dict[str, str], broker_url: str, queue_prefix: str, tmp_path: Path
) -> None:
    queue, url = f"{queue_prefix}.answers", f"{broker_url}?routing_key=x"
    if door == "apply":
        service = {"name": "bus", "type": "amqp", "base_url": url, "response_queue": queue}
        (tmp_path / "hub.yaml").write_text(json.dumps({"services": [service]}), "utf-8")
        command = ["apply", str(tmp_path / "hub.yaml")]
    else:
        command = ["service", "add", "bus", "--type", "amqp", "--url", url, "--response-queue", queue]
    done = subprocess.run([HUB, *command], env=hub_env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert exists(broker_url, queue)


def test_a_message_that_is_not_json_is_shown_as_hex_and_written_as_bytes(
    settings: Settings, hub_env: dict[str, str]
) -> None:
    data = b"\xff\xfe\x00<order>" + bytes(range(32))
    with build(settings) as hub:
        row = hub.db.one(
            "INSERT INTO deliveries (direction, service, success, outcome, raw)"
            " VALUES ('inbound', 'bus', false, 'malformed', %s) RETURNING id",
            [data],
        )
        assert row is not None
    show = [HUB, "log", "show", str(row["id"])]
    raw = subprocess.run([*show, "--raw"], env=hub_env, capture_output=True, timeout=120, check=True)
    assert raw.stdout == data
    shown = subprocess.run([*show, "--json"], env=hub_env, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(shown.stdout)["raw_hex"] == hex_dump(data)


def test_a_hex_dump_says_what_it_leaves_out() -> None:
    assert (
        hex_dump(b"AB\x00", limit=2)
        == "00000000  41 42                                            |AB|\n… 1 more bytes"
    )
    assert hex_dump(b"") == ""
