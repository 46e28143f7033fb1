"""`hub demo` as a newcomer starts it: what it prints is true, and nothing of it stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from importlib.resources import files
from pathlib import Path

import pika
import pytest

from hub.demo.environment import open_environment, sample_events
from hub.demo.roundtrip import responder, round_trip
from hub.demo.scenarios import Scenario, run
from hub.demo.screen import Screen

_COMMAND = [str(Path(sys.executable).with_name("hub")), "demo"]
_PATIENCE = 300  # seconds, on a machine that has a lot to do


def _start(home: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """The demo in a folder of its own, which is also where its temporary files go."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HUB_")}
    return subprocess.Popen(
        [*_COMMAND, *arguments],
        cwd=home,
        env={**kept, "TMPDIR": str(home), **env},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def _left_over(folder: Path) -> list[str]:
    """Processes that have to do with the folder, and what is in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + os.fsencode(os.readlink(process / "cwd"))
        except OSError:
            continue
        if os.fsencode(folder) in words:
            found.append(f"process {process.name}: {words[:200]!r}")
    return found + [str(path) for path in folder.iterdir()]


def test_the_file_holds_moodle_events_with_all_of_their_keys() -> None:
    """What a newcomer copies from has to be what Moodle sends."""
    keys = "eventname component action target objecttable objectid crud edulevel contextid contextlevel"
    keys += " contextinstanceid userid courseid relateduserid anonymous other timecreated"
    events = sample_events()
    assert len(events) > 10
    assert all(list(event.data) == keys.split() for event in events)
    assert len({event.name for event in events}) == 4


def test_every_promise_is_kept_on_the_embedded_default(tmp_path: Path) -> None:
    """The first thing a newcomer runs. The environment's own hub is left alone: it would not even answer here.

    A RabbitMQ that is named and does not answer costs its own scenario only.
    """
    foreign = {
        "HUB_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
        "HUB_HOME": str(tmp_path / "own"),
        "HUB_RETRY_DELAYS": "nonsense",
        "HUB_MAX_ATTEMPTS": "2",
        "HUB_BROKER_URL": "amqp://guest:secret-word@127.0.0.1:1/%2F",
    }
    process = _start(tmp_path, "--json", **foreign)
    out, err = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, err
    document = json.loads(out)
    assert document["ok"] is True
    assert document["events"] == document["delivered"] == len(sample_events()) + 1  # one row of Moodle's log
    assert (document["dead"], document["replayed"]) == (1, 1)
    assert document["breaker"][:3] == ["closed", "open", "half_open"]
    assert document["breaker"][-1] == "closed"
    assert document["attempts"]["3"] >= 1
    assert document["attempts"]["5"] == 1
    assert [scenario["attempts"] for scenario in document["scenarios"]][:3] == [1, 3, 5]
    assert set(document["attempts"]) <= {"1", "2", "3", "4", "5"}
    assert sum(document["attempts"].values()) == document["events"] + document["replayed"]
    assert all(scenario["ok"] for scenario in document["scenarios"])
    assert len(document["scenarios"]) == 7
    assert "left out" in err
    assert not any(secret in out + err for secret in ("demo-token", "secret-word"))
    assert "Traceback" not in err
    assert _left_over(tmp_path) == []


def test_it_ends_cleanly_when_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in the middle leaves no server, no process and no folder."""
    process = _start(tmp_path)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("2."):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 130, out + err
    assert "interrupted" in out
    assert "Traceback" not in out + err
    assert _left_over(tmp_path) == []


def test_with_a_rabbitmq_a_response_finds_the_request_it_belongs_to(broker_url: str) -> None:
    """The round trip over a response queue; its queues are gone afterwards."""
    scenario = Scenario("a request and its response")
    with open_environment(Screen(stderr=True), threading.Event()) as env, responder(broker_url) as service:
        run(env, scenario, lambda env, scenario: round_trip(env, scenario, broker_url, service))
        names = [service.requests, service.responses]
    assert [claim for claim, held in scenario.checks if not held] == []
    assert len(scenario.checks) == 4
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        for name in names:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
                connection.channel().queue_declare(name, passive=True)


def test_the_package_carries_its_files() -> None:
    """They are read at run time, also from an installed wheel."""
    for name in ("example.yaml", "events.ndjson"):
        assert files("hub.demo").joinpath(name).is_file()
