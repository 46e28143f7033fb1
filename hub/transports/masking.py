"""Mask a service's secrets in a text before the text leaves a transport.

A service may echo a secret in another form than it was sent: headers logged as JSON contain the base64 of HTTP basic
authentication, for example.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from urllib.parse import quote, quote_plus, unquote, urlsplit, urlunsplit
from xml.sax.saxutils import escape

from hub.domain.text import MASK
from hub.models import JSON, Service

_HTTP = ("http", "https")
_SECRET_NAME = re.compile(r"key|token|secret|pass|pwd|sig|auth|cred|session|code|jwt", re.IGNORECASE)
_MIN = 4  # characters; masking shorter secrets would garble texts and reveal the secret


def without_secrets(text: str, service: Service) -> str:
    """`text` with each secret of `service` replaced by `***`: plain, in JSON, percent-encoded or in base64."""
    for form in sorted(forms(service), key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def masked_url(url: str) -> str:
    """`url` with `***` for the password, for a user without one, and for secret parameters of the query.

    The query of URLs other than http and https is kept: its parameters hold no secrets.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    netloc = parts.netloc
    userinfo, at, hostport = netloc.rpartition("@")
    if at:
        user, colon, _ = userinfo.partition(":")
        if colon:
            netloc = f"{user}:***@{hostport}"
        elif parts.scheme in _HTTP:
            netloc = f"***@{hostport}"
    query = parts.query
    if parts.scheme in _HTTP and query:
        pairs = [pair.partition("=") for pair in query.split("&")]
        query = "&".join(f"{name}{eq}***" if eq and _secret_name(name) else name + eq + v for name, eq, v in pairs)
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def url_secrets(url: str) -> Iterator[str]:
    """The texts that `masked_url` replaces, percent-decoded."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    userinfo, at, _ = parts.netloc.rpartition("@")
    user, colon, password = userinfo.partition(":")
    if at and (colon or parts.scheme in _HTTP):
        yield unquote(password if colon else user)
    if parts.scheme in _HTTP:
        for name, eq, value in (pair.partition("=") for pair in parts.query.split("&")):
            if eq and _secret_name(name):
                yield unquote(value)


def _secret_name(name: str) -> bool:
    return _SECRET_NAME.search(unquote(name)) is not None


def hidden(value: JSON, service: Service) -> JSON:
    """A JSON value with each secret of `service` replaced by `***`, also in the names of members."""
    known = sorted(forms(service), key=len, reverse=True)
    return _hidden(value, known) if known else value


def _hidden(value: JSON, known: Sequence[str]) -> JSON:
    if isinstance(value, str):
        for form in known:
            value = value.replace(form, MASK)
        return value
    if isinstance(value, dict):
        return {_hidden(key, known): _hidden(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(inner, known) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and str(value) in known:
        return MASK
    return value


def forms(service: Service) -> set[str]:
    """Each form in which a secret of the service may appear in a text; secrets shorter than `_MIN` are left out."""
    found: set[str] = set()
    token_url = str((service.options.get("oauth2") or {}).get("token_url") or "")
    for secret in (*service.secrets.values(), *url_secrets(service.base_url), *url_secrets(token_url)):
        if len(secret) >= _MIN:
            found |= {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
            found |= {json.dumps(secret, ensure_ascii=False)[1:-1], _base64(secret)}
            found.add(escape(secret))
    found |= {_base64(pair) for pair in _pairs(service)}
    return found


def _pairs(service: Service) -> Iterator[str]:
    """The `user:password` texts that basic authentication encodes."""
    oauth2 = service.options.get("oauth2") or {}
    own = service.options.get("username") or unquote(urlsplit(service.base_url).username or "")
    for user, name in ((own, "password"), (oauth2.get("client_id"), "client_secret")):
        if secret := service.secrets.get(name):
            yield f"{user or ''}:{secret}"
            yield f"{quote(user or '', safe='')}:{quote(secret, safe='')}"


def _base64(text: str) -> str:
    return b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")
