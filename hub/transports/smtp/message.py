"""Builds the e-mail message of a request.

The payload is an object with `subject`, `text`, and optionally `html`, `to` and `reply_to`. `html` arrives with the
values of its placeholders already escaped. Header injection is impossible: line breaks in a subject become spaces,
and an address with one is refused.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from hub.codec import loads
from hub.errors import ConfigError, InvalidPayloadError, PayloadError
from hub.models import JSON, Request
from hub.transports.smtp.uri import SmtpUri, addresses

_FIELDS = ("subject", "text", "html", "to", "reply_to")
_MAX_SUBJECT = 900  # characters; a header line has at most 998 bytes


def build(uri: SmtpUri, request: Request) -> tuple[EmailMessage, list[str]]:
    """The message and its recipients as `local@domain`.

    Raises:
        InvalidPayloadError: the payload is not a message, or there is no recipient.
    """
    fields = _fields(request.body)
    try:
        to = addresses(_joined(fields, "to")) or list(uri.recipients)
        reply_to = addresses(_joined(fields, "reply_to"))
    except ConfigError as e:
        raise InvalidPayloadError(f"the payload {str(e).removeprefix('base_url: ')}") from None
    if not to:
        raise InvalidPayloadError("the message has no recipient: neither the payload nor the service names one in `to`")
    message = EmailMessage(policy=SMTP)
    message["From"] = uri.sender
    message["To"] = ", ".join(to)
    if reply_to:
        message["Reply-To"] = ", ".join(reply_to)
    subject = " ".join(_text(fields, "subject").split())
    message["Subject"] = subject[:_MAX_SUBJECT] or request.event_name or "Event"
    message["Date"] = format_datetime(request.at or datetime.now(UTC))  # noqa: TID251 - a header people read
    message["Message-ID"] = f"<{request.idempotency_key or uuid.uuid4()}@{_domain(uri.sender)}>"
    message["Auto-Submitted"] = "auto-generated"
    if request.task_id is not None:
        message["X-Hub-Task"] = str(request.task_id)
    message.set_content(_text(fields, "text"))
    if html := _text(fields, "html"):
        message.add_alternative(html, subtype="html")
    return message, [spec(address) for address in to]


def _fields(body: str | None) -> dict[str, JSON]:
    try:
        value = loads(body) if body else {}
    except PayloadError as e:
        raise InvalidPayloadError(str(e)) from None
    if not isinstance(value, dict) or not ("subject" in value or "text" in value or "html" in value):
        raise InvalidPayloadError(
            'the payload of a message is an object: {"subject": …, "text": …}; optional: html, to, reply_to'
        )
    if unknown := sorted(set(value) - set(_FIELDS)):
        raise InvalidPayloadError(f"the payload has the unknown field {unknown[0][:50]!r}; known: {', '.join(_FIELDS)}")
    return value


def _text(fields: dict[str, JSON], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if isinstance(value, dict | list | bool):
        raise InvalidPayloadError(f"{name} is not a text")
    return str(value)


def _joined(fields: dict[str, JSON], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, list):
        if not all(isinstance(item, str) for item in value):
            raise InvalidPayloadError(f"{name} is not a list of addresses")
        return ", ".join(value)
    return _text(fields, name)


def spec(address: str) -> str:
    """`local@domain` of a formatted address."""
    return address.rpartition("<")[2].rstrip(">")


def _domain(sender: str) -> str:
    return Address(addr_spec=spec(sender)).domain
