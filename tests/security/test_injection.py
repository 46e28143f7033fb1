"""What comes from outside forges no log line, no header and no path, and a second DNS answer moves nobody."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from hub.domain.rules import render
from hub.errors import DeliveryError, EgressRefusedError, InvalidPayloadError
from hub.models import Request, Service, ServiceType
from hub.programs import log_lines
from hub.programs.log_setup import configure_logging
from hub.settings import Settings
from hub.transports.base import Deadline
from hub.transports.rest import RestTransport
from tests.support.http_target import HttpTarget, Reply
from tests.unit.samples import NOW, rule

ROOT = Path(__file__).parents[2]
FORGED = "x\r\n2026-11-24T00:00:00Z [error    ] forged\x1b[2J\x9b2J\u202e"


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    root, text = logging.getLogger(), io.StringIO()
    before = (root.handlers, root.level, structlog.get_config())
    yield text
    root.handlers, root.level = before[0], before[1]
    structlog.configure(**before[2])


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize("text", [FORGED, "x\x1b[2J", "x\x9b2J", "x\ny"])
def test_a_log_line_stays_one_line(form: Any, text: str, logged: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the text is a field, the line's own text, or comes by way of a library."""
    configure_logging(Settings(log_format=form))
    monkeypatch.setattr(log_lines, "write", lambda line: logged.write(f"{line}\n"))
    log = structlog.get_logger("security")
    log.warning("attempt failed", error=text, _event=text, service=text)
    log.warning(text)
    logging.getLogger("library").warning("refused: %s", text)
    lines = logged.getvalue().split("\n")
    assert len(lines) == 4 and lines[-1] == ""
    assert not set(logged.getvalue()) & set("\r\x1b\x9b\u202e\u2028") or form == "json"
    if form == "json":
        assert json.loads(lines[0])["error"] == text


@pytest.fixture
def transport() -> Iterator[RestTransport]:
    made = RestTransport(Settings())
    yield made
    made.close()


def test_an_event_name_cannot_add_a_header(transport: RestTransport) -> None:
    with HttpTarget() as target:
        service = Service(1, "s", ServiceType.REST, target.url)
        request = Request(endpoint="/x", body="{}", event_name="e\r\nX-Forged: 1", idempotency_key="k")
        try:
            transport.send(service, request, Deadline(5))
        except DeliveryError:
            pass
        assert all("x-forged" not in seen.headers for seen in target.seen)


def test_a_second_dns_answer_moves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is asked once, and the address that was judged is the one that is called."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "rebind.test":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    made = RestTransport(Settings())
    try:
        with HttpTarget(Reply(200, {"ok": True}, close=True)) as target:
            service = Service(1, "s", ServiceType.REST, f"http://rebind.test:{target.port}")
            made.send(service, Request(endpoint="/a", body="{}"), Deadline(5))
            assert len(target.seen) == 1 and len(asked) == 1
            with pytest.raises(EgressRefusedError):  # the next connection asks anew, and what it hears is judged anew
                made.send(service, Request(endpoint="/b", body="{}"), Deadline(5))
    finally:
        made.close()


def rendered(value: str) -> str:
    """The endpoint `/users/{{x}}/edit` with this value."""
    event = {"event_name": "e", "event_data": {"x": value}, "event_id": "i", "task_id": 1, "now": NOW}
    return render(rule(endpoint="/users/{{x}}/edit", method="POST"), **event)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["../../admin", "..", "a/../../b", "\\..\\x"])
def test_a_value_with_dot_segments_is_refused(value: str) -> None:
    with pytest.raises(InvalidPayloadError):
        rendered(value)


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        ("%2e%2e/x", "%252e%252e%2Fx"),
        ("x?admin=1", "x%3Fadmin%3D1"),
        ("x#y", "x%23y"),
        ("//evil", "%2F%2Fevil"),
    ],
)
def test_a_value_stays_one_segment_of_the_path(value: str, segment: str, transport: RestTransport) -> None:
    with HttpTarget() as target:
        service = Service(1, "s", ServiceType.REST, f"{target.url}/base")
        transport.send(service, Request(endpoint=rendered(value), body="{}"), Deadline(60))
        assert [(seen.path, seen.query) for seen in target.seen] == [(f"/base/users/{segment}/edit", "")]


def test_the_bill_of_materials_names_what_is_installed(tmp_path: Path) -> None:
    """`make sbom` needs no network; every dependency of the project is on it, with its version."""
    uv = ROOT / ".venv" / ".uv" / "bin" / "uv"
    command = [
        str(uv) if uv.exists() else "uv",
        "export",
        "--quiet",
        "--frozen",
        "--no-dev",
        "--all-extras",
        "--format",
        "cyclonedx1.5",
        "--output-file",
        str(tmp_path / "sbom.json"),
    ]
    try:
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("uv is not here")
    found = {c["name"]: c.get("version") for c in json.loads((tmp_path / "sbom.json").read_text())["components"]}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for line in wanted:
        name = line.split(">")[0].split("=")[0].split("<")[0].split("[")[0].split(";")[0].strip().lower()
        assert found.get(name), f"{name} is not on the bill"
