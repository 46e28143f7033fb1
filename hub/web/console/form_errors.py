"""Errors of a form in the words of the form: which field, and what to do, all of them at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FIELD = re.compile(r"([A-Za-z_][^:]{0,200}): (.+)", re.DOTALL)
_NEEDS = re.compile(r"auth: auth of type '\w+' needs '(\w+)'")
_WORDS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), words)
    for pattern, words in (
        (r"Field required|String should have at least 1 character|must not be empty|is missing", "is required"),
        (r"Input should be a valid integer.*", "must be a whole number"),
        (r"Input should be a valid number.*", "must be a number"),
        (r"Input should be greater than or equal to (\S+)", r"must be at least \1"),
        (r"Input should be greater than (\S+)", r"must be more than \1"),
        (r"Input should be less than or equal to (\S+)", r"must be at most \1"),
        (r"Input should be less than (\S+)", r"must be less than \1"),
        (r"String should have at (least|most) (\d+) characters?", r"must have at \1 \2 characters"),
        (r"String should match pattern .*", "has characters that are not allowed here"),
        (r"Input should be (.*)", r"must be \1"),
    )
)
_PREDICATE = re.compile(r"(must|is|are|has|have|may|does|needs|cannot) ")

SERVICE_LABELS = {
    "name": "Name",
    "type": "Type",
    "base_url": "Address",
    "auth_type": "Kind",
    "auth_token": "Token or key",
    "auth_header": "Header",
    "auth_username": "User",
    "auth_password": "Password",
    "auth_password_type": "Password sent as",
    "auth_token_url": "Token address",
    "auth_client_id": "Client id",
    "auth_client_secret": "Client secret",
    "auth_scope": "Scope",
    "amqp_host": "Host",
    "amqp_port": "Port",
    "amqp_password": "Password",
    "response_queue": "Response queue",
    "timeout": "Timeout",
    "max_retries": "Tries per attempt",
    "retry_backoff": "Wait between tries",
    "cb_failure_threshold": "Circuit opens after",
    "cb_cooldown": "Circuit stays open for",
    "rate_limit": "Rate limit",
    "max_attempts": "Attempts per task",
    "retry_delays": "Delays between attempts",
    "headers": "Headers",
    "secret_headers": "Secret headers",
    "signing_secret": "Signing secret",
    "signing_secret_old": "Previous signing secret",
    "inbound_token": "Inbound token",
    "inbound_signing_secret": "Inbound signing secret",
    "ca_file": "CA file",
    "client_cert": "Client certificate",
    "client_key": "Client key",
    "credentials_origin": "Credentials also go to",
    "mask": "Masked in the log",
}
RULE_LABELS = {
    "name": "Name",
    "event": "Event",
    "service": "Service",
    "endpoint": "Endpoint",
    "method": "Method",
    "payload": "Payload",
    "conditions": "Conditions",
    "ordering_key": "Ordering key",
}


@dataclass(frozen=True, slots=True)
class FormError:
    """One error. `field`: name of the form's field, empty for an error of the whole form."""

    field: str
    text: str


def form_errors(
    error: Exception, labels: Mapping[str, str], *, renamed: Mapping[str, str] | None = None
) -> list[FormError]:
    """Split the text of an error into errors of fields, in the order of the form.

    Args:
        labels: name of a field -> its label, in the order of the form.
        renamed: path in the document -> name of the field, where they differ.
    """
    found = [_one(part, labels, renamed or {}) for part in re.split(r"; (?=[a-z_]+[^:; ]*: )", str(error))]
    return _in_order(found, labels)


def _in_order(errors: list[FormError], labels: Mapping[str, str]) -> list[FormError]:
    order = list(labels)
    return sorted(errors, key=lambda e: order.index(e.field) if e.field in labels else len(order))


def service_errors(error: Exception, document: Mapping[str, Any]) -> list[FormError]:
    """The errors of a service's form. An AMQP service has the parts of its address as fields.

    The address is checked after all other fields; a missing one is reported together with their errors.
    """
    amqp = {"base_url": "amqp_host"} if document["type"] == "amqp" else {}
    found = form_errors(error, SERVICE_LABELS, renamed={"port": "amqp_port", "password": "amqp_password", **amqp})
    if not document["base_url"]:
        missing = FormError("base_url", "Address is required")
        found = [missing, *(e for e in found if e.field != "base_url")]
    return _in_order(found, SERVICE_LABELS)


def _one(part: str, labels: Mapping[str, str], renamed: Mapping[str, str]) -> FormError:
    part = _NEEDS.sub(r"auth.\1: is required", part)
    match = _FIELD.fullmatch(part)
    if match is None:
        return FormError("", part)
    path, message = match[1].split("."), match[2]
    names = (renamed.get(path[0], path[0]), "_".join(path[:2]), path[-1])
    # Errors of nested models have the kind of the model in their path: auth.bearer.token.
    nested = f"{path[0]}_{path[-1]}"
    field = next((name for name in (nested, *names) if name in labels), "")
    if not field:
        return FormError("", part)
    for pattern, words in _WORDS:
        if pattern.fullmatch(message):
            message = pattern.sub(words, message)
            break
    return FormError(
        field, f"{labels[field]} {message}" if _PREDICATE.match(message) else f"{labels[field]}: {message}"
    )
