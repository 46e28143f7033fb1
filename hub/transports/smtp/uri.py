"""Parses the `base_url` of an SMTP service: `smtp[s]://user:password@host:port?from=&to=&starttls=`."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.headerregistry import Address
from email.utils import getaddresses
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from hub.domain.urls import check_brackets
from hub.errors import ConfigError

PARAMETERS = ("from", "to", "starttls")
_PORTS = {"smtp": 587, "smtps": 465}
MAX_RECIPIENTS = 100


@dataclass(frozen=True, slots=True)
class SmtpUri:
    """The server, the sender and the default recipients.

    Attributes:
        tls: the connection is encrypted from its first byte (`smtps`).
        starttls: `required` encrypts before anything else is sent; `off` sends in plain text.
        sender: the address that messages come from.
        recipients: the recipients of a message whose payload names none.
    """

    host: str
    port: int
    tls: bool
    starttls: Literal["required", "off"]
    sender: str
    recipients: tuple[str, ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def parse(url: str) -> SmtpUri:
    """Parse a URL; raises `ConfigError` that does not show the password."""
    try:
        parts = urlsplit(url)
        check_brackets(parts.netloc)
        host, port = parts.hostname, parts.port
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as e:
        raise _error(f"is not a URL: {e}") from None
    if parts.scheme not in _PORTS:
        raise _error("starts with neither smtp:// nor smtps://")
    if not host:
        raise _error("has no host")
    if parts.path not in ("", "/") or parts.fragment:
        raise _error("has a path; the sender and the recipients are parameters: ?from=…&to=…")
    given = dict(pairs)
    if len(given) != len(pairs):
        raise _error("has a parameter twice; several recipients are separated by commas")
    if unknown := sorted(set(given) - set(PARAMETERS)):
        raise _error(f"has the unknown parameter {unknown[0][:50]!r}; known: {', '.join(PARAMETERS)}")
    starttls = given.get("starttls") or "required"
    if starttls not in ("required", "off"):
        raise _error("has a starttls that is neither required nor off")
    senders = addresses(given.get("from") or "")
    if len(senders) != 1:
        raise _error("needs one sender: ?from=hub@example.org")
    return SmtpUri(
        host=host,
        port=port or _PORTS[parts.scheme],
        tls=parts.scheme == "smtps",
        starttls="off" if starttls == "off" else "required",
        sender=senders[0],
        recipients=tuple(addresses(given.get("to") or "")),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def addresses(text: str) -> list[str]:
    """The addresses of a comma-separated list, each as `local@domain` or `Name <local@domain>`.

    Raises:
        ConfigError: one of them is not an address.
    """
    if any(c < " " or c == "\x7f" for c in text):
        raise _error("has a line break or control character in an address")
    found: list[str] = []
    for name, address in getaddresses([text]) if text.strip() else ():
        try:
            checked = Address(display_name=name, addr_spec=address)
        except (ValueError, IndexError):
            raise _error(f"names {address[:100]!r}, which is not an e-mail address") from None
        if not checked.username or not checked.domain:
            raise _error(f"names {(address or name)[:100]!r}, which is not an e-mail address")
        found.append(str(checked))
    if len(found) > MAX_RECIPIENTS:
        raise _error(f"names more than {MAX_RECIPIENTS} recipients")
    return found


def _error(what: str) -> ConfigError:
    return ConfigError(what, field="base_url")
