"""E-mail: messages as a real SMTP server receives them, refusals, TLS, and a rule that sends mail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.app.lifecycle import build
from hub.config.definitions import RuleSpec, ServiceSpec
from hub.errors import AuthenticationError, ConfigError, ConnectError, InvalidPayloadError, MailRefusedError
from hub.models import Event, Request, Service, ServiceType
from hub.settings import Settings
from hub.transports.base import Deadline
from hub.transports.smtp import uri
from hub.transports.smtp.transport import SmtpTransport
from tests.support.certificates import Authority
from tests.support.mail_server import MailServer

LONG = 60.0


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as made:
        yield made


def service(server: MailServer, query: str = "&starttls=off", scheme: str = "smtp", **changes: object) -> Service:
    url = f"{scheme}://localhost:{server.port}?from=Hub%20%3Chub@example.org%3E&to=ops@example.org{query}"
    return Service(1, "mail", ServiceType.SMTP, url, **changes)  # type: ignore[arg-type]


def send(server: MailServer, body: str, **changes: object) -> None:
    request = Request(body=body, idempotency_key="key-1", task_id=7, event_name="order.paid")
    SmtpTransport(Settings()).send(service(server, **changes), request, Deadline(LONG))  # type: ignore[arg-type]


def test_text_and_html_arrive_with_one_message_id_per_task(server: MailServer) -> None:
    body = '{"subject": "Größe", "text": "plain ä", "html": "<b>bold</b>", "reply_to": "x@example.org"}'
    send(server, body)
    send(server, body)
    first, second = server.messages
    assert first["Message-ID"] == second["Message-ID"] == "<key-1@example.org>"
    assert (first["Subject"], first["Reply-To"], first["X-Hub-Task"]) == ("Größe", "x@example.org", "7")
    assert first["From"] == "Hub <hub@example.org>" and first["Auto-Submitted"] == "auto-generated"
    [plain, html] = first.iter_parts()
    assert plain.get_content().strip() == "plain ä" and html.get_content().strip() == "<b>bold</b>"
    assert server.envelopes[0].rcpt_tos == ["ops@example.org"]


def test_no_value_can_add_a_header_or_a_recipient(server: MailServer) -> None:
    """A line break in a subject becomes a space; one in an address is refused before anything is sent."""
    send(server, '{"subject": "a\\r\\nBcc: thief@example.org", "text": "t"}')
    [message] = server.messages
    assert message["Bcc"] is None and message["Subject"] == "a Bcc: thief@example.org"
    assert server.envelopes[0].rcpt_tos == ["ops@example.org"]
    for to in ("a@example.org\\r\\nBcc: b@example.org", "nobody", "a@example.org, @", "<>"):
        with pytest.raises(InvalidPayloadError):
            send(server, f'{{"subject": "s", "to": "{to}"}}')
    assert len(server.messages) == 1


@pytest.mark.parametrize(
    "body", ["[]", "{}", '{"subject": {}}', '{"subject": "s", "bcc": "x@example.org"}', '{"text": "t", "to": [1]}']
)
def test_a_payload_that_is_no_message_is_refused(server: MailServer, body: str) -> None:
    with pytest.raises(InvalidPayloadError):
        send(server, body)
    assert server.messages == []


@pytest.mark.parametrize(
    ("command", "code", "retriable", "breaker"),
    [("MAIL", 421, True, True), ("RCPT", 450, True, False), ("RCPT", 550, False, False), ("DATA", 554, False, False)],
)
def test_replies_are_mapped(server: MailServer, command: str, code: int, retriable: bool, breaker: bool) -> None:
    """421 and 450 are tried again, 550 is not; only 421 says that the server is down."""
    server.refuse = {command: f"{code} no"}
    with pytest.raises(MailRefusedError) as caught:
        send(server, '{"subject": "s", "text": "t"}')
    error = caught.value
    assert (error.status, error.retriable, error.counts_against_breaker) == (code, retriable, breaker)
    assert server.messages == []


def test_starttls_is_required_unless_told_otherwise(server: MailServer, tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="STARTTLS"):
        send(server, '{"text": "t"}', query="")
    authority = Authority(tmp_path)
    mine = {"ca_file": authority.file}
    with MailServer(user="hub", password="right", starttls=authority.server()) as secure:
        transport = SmtpTransport(Settings(tls_dir=tmp_path))
        request = Request(body='{"text": "t"}', idempotency_key="k")
        url = f"smtp://hub@localhost:{secure.port}?from=a@example.org&to=b@example.org"
        good = Service(1, "mail", ServiceType.SMTP, url, secrets={"password": "right"}, options=mine)
        transport.send(good, request, Deadline(LONG))
        assert len(secure.messages) == 1
        stranger = Service(2, "mail", ServiceType.SMTP, url, secrets={"password": "right"})
        with pytest.raises(ConnectError, match="certificate"):
            transport.send(stranger, request, Deadline(LONG))
        wrong = Service(3, "mail", ServiceType.SMTP, url, secrets={"password": "wrong"}, options=mine)
        with pytest.raises(AuthenticationError):
            transport.send(wrong, request, Deadline(LONG))


@pytest.mark.parametrize(
    "url",
    [
        "smtp://host",
        "smtp://host?from=nobody",
        "smtp://host?from=a@b.c,d@e.f",
        "smtp://host?from=a@b.c&to=x",
        "smtp://host?from=a@b.c&starttls=maybe",
        "smtp://host?from=a@b.c&bcc=x@y.z",
        "smtp://host/path?from=a@b.c",
        "http://host?from=a@b.c",
        "smtp://?from=a@b.c",
    ],
)
def test_a_url_that_cannot_work_is_refused_when_saved(url: str) -> None:
    with pytest.raises(ConfigError):
        uri.parse(url)


def test_a_rule_sends_mail_with_its_values_escaped(settings: Settings, server: MailServer) -> None:
    """From an accepted event to the mail server, with HTML in a value."""
    with build(settings) as hub:
        url = f"smtp://127.0.0.1:{server.port}?from=hub@example.org&to=ops@example.org&starttls=off"
        hub.registry.services.add(ServiceSpec.model_validate({"name": "mail", "type": "smtp", "base_url": url}))
        payload = {"subject": "New: {{name}}", "text": "{{name}}", "html": "<p title='{{name}}'>{{name}}</p>"}
        rule = {"name": "tell", "event": "user.new", "service": "mail", "payload": payload}
        hub.registry.rules.add(RuleSpec.model_validate(rule))
        accepted = hub.intake.handle_event(Event("user.new", {"name": '<i>O\'Neil & "Co"</i>'}))
        [task] = accepted.tasks
        assert hub.dispatcher.run(task) == "delivered"
    [message] = server.messages
    [plain, html] = message.iter_parts()
    assert plain.get_content().strip() == '<i>O\'Neil & "Co"</i>'
    safe = "&lt;i&gt;O&#x27;Neil &amp; &quot;Co&quot;&lt;/i&gt;"
    assert html.get_content().strip() == f"<p title='{safe}'>{safe}</p>"
