"""The form of a service: values of the fields from a service's document, and back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from hub.domain.text import MASK
from hub.errors import ConfigError
from hub.transports.amqp.uri import TEXT_PARAMETERS
from hub.web.console.forms import Form

_NUMBERS = (
    "timeout",
    "max_retries",
    "retry_backoff",
    "cb_failure_threshold",
    "cb_cooldown",
    "rate_limit",
    "max_attempts",
)
_TEXTS = ("response_queue", "ca_file", "client_cert", "client_key", "credentials_origin")
_AUTH_SECRETS = ("token", "password", "client_secret")
_AUTH = {
    "bearer": ("token",),
    "apikey": ("token", "header"),
    "basic": ("username", "password"),
    "wsse": ("username", "password", "password_type"),
    "oauth2": ("token_url", "client_id", "client_secret", "scope"),
}
BLANK = {
    "name": "",
    "type": "rest",
    "base_url": "",
    "enabled": True,
    "auth": {"type": "none"},
    "timeout": 5.0,
    "max_retries": 3,
    "retry_backoff": 1.0,
    "cb_failure_threshold": 5,
    "cb_cooldown": 30.0,
    "response_queue": None,
}


def to_document(form: Form, old: dict[str, Any] | None, known: str | None = None) -> dict[str, Any]:
    """The form as a document, as in a file for `hub apply`. A stored secret stays if its field is empty."""
    type_ = form.get("type", "rest")
    document: dict[str, Any] = {"name": form.get("name"), "type": type_, "enabled": "enabled" in form}
    document["base_url"] = _amqp_url(form, old, known) if type_ == "amqp" else form.get("base_url")
    for name in _NUMBERS:
        text = form.get(name)
        document[name] = text if text else BLANK.get(name)
    for name in _TEXTS:
        document[name] = form.get(name) or None
    if type_ != "amqp":
        document["response_queue"] = None
    auth_type = "none" if type_ == "amqp" else form.get("auth_type", "none")
    auth: dict[str, Any] = {"type": auth_type}
    for name in _AUTH.get(auth_type, ()):
        auth[name] = form.get(f"auth_{name}") or None
    document["auth"] = auth
    document["headers"] = _headers(form.raw("headers"), "headers")
    document["secret_headers"] = _headers(form.raw("secret_headers"), "secret_headers")
    document["mask"] = [line.strip() for line in form.raw("mask").splitlines() if line.strip()]
    delays = [part.strip() for part in form.get("retry_delays").split(",") if part.strip()]
    document["retry_delays"] = delays or None
    for name in ("signing_secret", "signing_secret_old"):
        document[name] = form.get(name) or None
    document["inbound"] = {name: form.get(f"inbound_{name}") or None for name in ("token", "signing_secret")}
    if old is not None:
        _keep(document, old, removed=form.all("remove"))
    return document


def _keep(document: dict[str, Any], old: dict[str, Any], *, removed: Collection[str]) -> None:
    """Keep stored secrets whose field is empty, unless they are to be removed."""
    same_kind = document["auth"]["type"] == old["auth"]["type"]
    parts = (
        ("auth_", document["auth"], old["auth"] if same_kind else {}, _AUTH_SECRETS),
        ("", document, old, ("signing_secret", "signing_secret_old")),
        ("inbound_", document["inbound"], old.get("inbound") or {}, ("token", "signing_secret")),
        ("", document["secret_headers"], old.get("secret_headers") or {}, tuple(document["secret_headers"])),
    )
    for prefix, new, stored, names in parts:
        for name in names:
            if not new.get(name) and stored.get(name) and f"{prefix}{name}" not in removed:
                new[name] = MASK


def stored_fields(document: dict[str, Any]) -> set[str]:
    """Names of the form's secret fields that have a stored value."""
    found = {f"auth_{name}" for name in _AUTH_SECRETS if document["auth"].get(name)}
    found |= {name for name in ("signing_secret", "signing_secret_old") if document.get(name)}
    found |= {f"inbound_{name}" for name in document.get("inbound") or {}}
    return found | ({"amqp_password"} if document["type"] == "amqp" and MASK in document["base_url"] else set())


def _headers(text: str, field: str) -> dict[str, str]:
    """Parse lines of the form `Name: value`."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.strip():
            name, colon, value = line.partition(":")
            if not colon:
                raise ConfigError(f"{line.strip()[:40]!r} is not of the form `Name: value`", field=field)
            found[name.strip()] = value.strip()
    return found


def _amqp_url(form: Form, old: dict[str, Any] | None, known: str | None) -> str:
    """Compose the URI from its fields, which are percent-encoded here.

    Args:
        known: the stored password. It stays if the field is empty, and is never used for another host.
    """
    host, port = form.get("amqp_host") or "localhost", form.get("amqp_port")
    if port and not port.isdigit():
        raise ConfigError("must be a number", field="port")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    user, password = form.get("amqp_user"), form.raw("amqp_password")
    login = ""
    if user or password:
        if password == MASK and (known is None or old is None):
            raise ConfigError("*** stands for a stored password, and there is none; enter it", field="password")
        if password in ("", MASK) and known is not None and old is not None:
            if form.get("amqp_host") != urlsplit(old["base_url"]).hostname:
                raise ConfigError("must be entered again, because the host has changed", field="password")
            password = known
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "") + "@"
    vhost = form.get("amqp_vhost")
    path = f"/{quote(vhost, safe='')}" if vhost else ""
    query = {name: form.get(f"amqp_{name}") for name in TEXT_PARAMETERS if form.get(f"amqp_{name}")}
    if old and old["type"] == "amqp":  # parameters without a field stay
        query |= {key: value for key, value in parse_qsl(urlsplit(old["base_url"]).query) if key not in TEXT_PARAMETERS}
    scheme = "amqps" if "amqp_tls" in form else "amqp"
    return f"{scheme}://{login}{host}{f':{port}' if port else ''}{path}{'?' + urlencode(query) if query else ''}"


def to_fields(document: dict[str, Any], typed: Form | None = None) -> dict[str, Any]:
    """Values of the form's fields. A password is shown only as it was typed."""
    amqp: dict[str, Any] = dict.fromkeys(("host", "port", "user", "password", "vhost", "tls", *TEXT_PARAMETERS), "")
    if document["type"] == "amqp" and document["base_url"]:
        try:
            url = urlsplit(document["base_url"])
            login, _, _ = url.netloc.rpartition("@")
            user, _, password = login.partition(":")
            amqp |= {
                "host": url.hostname or "",
                "port": url.port or "",
                "user": unquote(user),
                "password": "" if password == MASK else unquote(password),
                "vhost": unquote(url.path[1:]),
                "tls": url.scheme == "amqps",
            }
            amqp |= {key: value for key, value in parse_qsl(url.query) if key in TEXT_PARAMETERS}
        except ValueError:
            pass  # an invalid URL leaves the fields empty
    if typed is not None:
        amqp["password"] = typed.raw("amqp_password")
    lines = {
        part: "\n".join(f"{k}: {'' if v == MASK else v}" for k, v in (document.get(part) or {}).items())
        for part in ("headers", "secret_headers")
    }
    return {
        "d": document,
        "stored": set(),
        "amqp": amqp,
        "lines": lines,
        "auth": document.get("auth") or {"type": "none"},
        "inbound": document.get("inbound") or {},
        "mask": "\n".join(document.get("mask") or []),
        "delays": ", ".join(
            f"{float(v):g}" if str(v).replace(".", "", 1).isdigit() else str(v)
            for v in document.get("retry_delays") or []
        ),
    }
