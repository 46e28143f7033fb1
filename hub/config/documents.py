"""Services and rules as people write them, and back: documents, masks, and what only a transport can check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from hub.config.definitions import PLAIN_OPTIONS, RuleSpec, ServiceSpec, template_value
from hub.config.yaml_file import Reference
from hub.domain.rules import BODYLESS
from hub.domain.text import MASK
from hub.domain.urls import around_password, join_password, split_password
from hub.errors import ConfigError, InvalidPayloadError
from hub.models import Rule, Service
from hub.transports.amqp import uri as amqp_uri
from hub.transports.http.urls import check_endpoint
from hub.transports.masking import masked_url, url_secrets
from hub.transports.signing import check_secret
from hub.transports.smtp import uri as smtp_uri

_NEEDED = {
    "bearer": ("token",),
    "apikey": ("token",),
    "basic": ("password",),
    "wsse": ("password",),
    "oauth2": ("client_secret",),
}


def check_service(spec: ServiceSpec, stored: Mapping[str, str] | None = None) -> None:
    """What only a transport can tell of a definition; raises `ConfigError` that names the field.

    Args:
        stored: the service's secrets before a change, by name; those that stay are not judged again.
    """
    secrets = {name: value for name, value in spec.split()[1].items() if value != (stored or {}).get(name)}
    for name, value in secrets.items():
        if value.startswith(MASK):
            raise ConfigError(
                "begins with ***, which stands for a secret that is stored; give the secret itself",
                field=_field(spec, name),
            )
    for field, url in (("base_url", split_password(spec.base_url)[0]), ("auth.token_url", spec.auth.token_url or "")):
        if any(value.startswith(MASK) for value in url_secrets(url)):
            raise ConfigError("holds ***, which stands for a secret that is stored; give the whole URL", field=field)
    if spec.type == "smtp":
        smtp_uri.parse(split_password(spec.base_url)[0])
    if spec.type == "amqp":
        amqp_uri.parse(split_password(spec.base_url)[0])
    for name in ("signing_secret", "signing_secret_old", "inbound_signing_secret"):
        check_secret(_field(spec, name), secrets.get(name))
    if spec.auth.type == "oauth2" and urlsplit(spec.auth.token_url or "").scheme not in ("http", "https"):
        raise ConfigError("starts with neither http:// nor https://", field="auth.token_url")


def _field(spec: ServiceSpec, name: str) -> str:
    """The field of a definition that a stored secret comes from."""
    kind, _, rest = name.partition(":")
    if kind == "header":
        return f"secret_headers.{rest}"
    if name.startswith("inbound_"):
        return f"inbound.{name.removeprefix('inbound_')}"
    if kind == "password" and spec.auth.type != "basic":
        return "base_url"
    return name if name.startswith("signing_") else f"auth.{name}"


def check_rule(spec: RuleSpec, service_type: str, base_url: str) -> None:
    """Whether such a rule makes sense for a service of that type and URL; raises `ConfigError`."""
    if service_type == "rest":
        try:
            check_endpoint(base_url, spec.endpoint)
        except InvalidPayloadError as e:
            raise ConfigError(str(e), field="endpoint") from None
    if service_type != "rest" and spec.method in BODYLESS:
        raise ConfigError(
            f"{spec.method} sends no payload, and a {service_type} service takes nothing else; use POST", field="method"
        )


def check_replaced(spec: ServiceSpec, changes: dict[str, Any]) -> None:
    """Whether a change of a service whose secrets cannot be read gives them all anew; raises `ConfigError`.

    What is stored may be read again some day, with its key; only secrets entered on purpose may replace it.
    """
    columns, secrets = spec.split()
    none_wanted = "auth" in changes and not urlsplit(columns["base_url"]).username
    if MASK in secrets.values() or not (secrets or none_wanted):
        raise ConfigError(
            "the stored secrets cannot be read, and a change replaces them: give all of them with it (auth, password,"
            " secret headers, signing and inbound secrets), or add their key to HUB_SECRET_KEYS first"
        )


def merge(document: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Changes over a document; `auth` and `inbound` merge by key unless auth's type changes."""
    merged = {**document, **changes}
    for part in ("auth", "inbound"):
        old, new = document.get(part), changes.get(part)
        if isinstance(old, dict) and isinstance(new, dict) and new.get("type", old.get("type")) == old.get("type"):
            merged[part] = {**old, **new}
    url = changes.get("base_url")
    if isinstance(url, str) and MASK in url:
        merged["base_url"] = _unmasked_url(url, document["base_url"], "base_url")
    token_url = (changes.get("auth") or {}).get("token_url") if isinstance(changes.get("auth"), dict) else None
    if isinstance(token_url, str) and MASK in token_url:
        known = str((document.get("auth") or {}).get("token_url") or "")
        merged["auth"] = {**merged["auth"], "token_url": _unmasked_url(token_url, known, "auth.token_url")}
    for part in ("auth", "inbound", "secret_headers"):
        if isinstance(merged.get(part), dict):
            merged[part] = _unmasked(merged[part], document.get(part) or {}, f"{part}.")
    return _unmasked(merged, document, "")


def _unmasked_url(given: str, known: str, field: str) -> str:
    """The URL that is stored, of one that was read masked and is written back so."""
    if given != masked_url(known):
        raise ConfigError("the password is masked (***), or a part of the query; give the whole URL", field=field)
    return known


def _unmasked(given: dict[str, Any], known: dict[str, Any], where: str) -> dict[str, Any]:
    """What was read masked and is written back so means the secret that is there."""
    found = dict(given)
    for key, value in given.items():
        if value == MASK and (where or key.startswith("signing_secret")):
            if not isinstance(known.get(key), str):
                raise ConfigError("is masked (***), and there is none to keep; give it", field=where + key)
            found[key] = known[key]
    return found


def service_document(
    service: Service, *, secrets: bool = False, mask: str | Callable[[str], Reference] = MASK
) -> dict[str, Any]:
    """A service as people write it (the apply file's shape); secrets masked unless asked for, and readable.

    Args:
        mask: stands for every secret, or returns the reference for the secret of that name.
    """
    known = service.secrets
    if service.secrets_unreadable:
        known = dict.fromkeys(_NEEDED.get(service.auth_type, ()), MASK)  # those that are there for sure

    def show(key: str) -> str | Reference:
        return known[key] if secrets else mask(key) if callable(mask) else mask

    o = service.options
    auth: dict[str, Any] = {"type": service.auth_type}
    if "token" in known:
        auth["token"] = show("token")
    if o.get("apikey_header"):
        auth["header"] = o["apikey_header"]
    if o.get("username"):
        auth["username"] = o["username"]
    if o.get("password_type"):
        auth["password_type"] = o["password_type"]
    url: str | Reference = service.base_url
    if "password" in known:
        password = show("password")
        if service.auth_type in ("basic", "wsse"):
            auth["password"] = password
        elif isinstance(password, Reference):
            before, after = around_password(service.base_url)
            url = Reference(password.name, before, after)
        else:
            url = join_password(service.base_url, quote(password, safe="*"))
    if not secrets and isinstance(url, str):
        url = _shown_url(url, "base_url", mask)
    if service.auth_type == "oauth2":
        auth.update(o.get("oauth2", {}), client_secret=show("client_secret"))
        if not secrets and "token_url" in auth:
            auth["token_url"] = _shown_url(auth["token_url"], "token_url", mask)
    document: dict[str, Any] = {
        "name": service.name,
        "type": service.type.value,
        "base_url": url,
        "enabled": service.enabled,
        "auth": auth,
        "timeout": service.timeout,
        "max_retries": service.max_retries,
        "retry_backoff": service.retry_backoff,
        "cb_failure_threshold": service.cb_failure_threshold,
        "cb_cooldown": service.cb_cooldown,
        "response_queue": service.response_queue,
    }
    for key in PLAIN_OPTIONS:
        if key in o:
            document[key] = o[key]
    secret_headers = {k.removeprefix("header:"): show(k) for k in known if k.startswith("header:")}
    if secret_headers:
        document["secret_headers"] = secret_headers
    for key in ("signing_secret", "signing_secret_old"):
        if key in known:
            document[key] = show(key)
    inbound = {k.removeprefix("inbound_"): show(k) for k in known if k.startswith("inbound_")}
    if inbound:
        document["inbound"] = inbound
    return document


def _shown_url(url: str, key: str, mask: str | Callable[[str], Reference]) -> str | Reference:
    """A URL without its secrets; in an export, which must be complete, a reference to all of it."""
    shown = masked_url(url)
    return mask(key) if callable(mask) and shown != url else shown


def spec_document(spec: RuleSpec) -> dict[str, Any]:
    """A rule that is to be written, in the shape of `rule_document`."""
    return {
        "name": spec.name,
        "event": spec.event,
        "service": spec.service,
        "endpoint": spec.endpoint,
        "method": spec.method,
        "payload": template_value(spec.template()),
        "conditions": spec.conditions,
        "strict": spec.strict,
        "ordering_key": spec.ordering_key,
        "on_failure": spec.on_failure,
        "enabled": spec.enabled,
    }


def rule_document(rule: Rule) -> dict[str, Any]:
    """A rule as people write it."""
    return {
        "name": rule.name,
        "event": rule.event,
        "service": rule.service,
        "endpoint": rule.endpoint,
        "method": rule.method,
        "payload": template_value(rule.payload),
        "conditions": rule.conditions,
        "strict": rule.strict,
        "ordering_key": rule.ordering_key,
        "on_failure": rule.on_failure,
        "enabled": rule.enabled,
    }
