"""Stage 9: the last look at a text before it leaves a transport: no secret of the service may be in it.

Services repeat what they were sent, and not always as it was sent: a log of headers as JSON holds a password in
base64, because HTTP's basic authentication does.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator, Sequence
from urllib.parse import quote, quote_plus, unquote, urlsplit
from xml.sax.saxutils import escape

from hub.models import JSON, Service

_MIN = 4  # masking shorter ones would shred every text and say what they are


def without_secrets(text: str, service: Service) -> str:
    """`text` with each secret of `service` replaced by `***`: plain, in JSON, percent-encoded or in base64."""
    for form in sorted(forms(service), key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def hidden(value: JSON, service: Service) -> JSON:
    """A JSON value with each secret of `service` replaced by `***`, in members' names too."""
    known = sorted(forms(service), key=len, reverse=True)
    return _hidden(value, known) if known else value


def _hidden(value: JSON, known: Sequence[str]) -> JSON:
    if isinstance(value, str):
        for form in known:
            value = value.replace(form, "***")
        return value
    if isinstance(value, dict):
        return {_hidden(key, known): _hidden(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(inner, known) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and str(value) in known:
        return "***"
    return value


def forms(service: Service) -> set[str]:
    """Each way in which a secret of the service may appear in a text; those of a few characters are left out."""
    found: set[str] = set()
    for secret in service.secrets.values():
        if len(secret) >= _MIN:
            found |= {secret, quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}
            found |= {json.dumps(secret, ensure_ascii=False)[1:-1], _base64(secret)}
            found.add(escape(secret))
    found |= {_base64(pair) for pair in _pairs(service)}
    return found


def _pairs(service: Service) -> Iterator[str]:
    """What basic authentication sends."""
    oauth2 = service.options.get("oauth2") or {}
    own = service.options.get("username") or unquote(urlsplit(service.base_url).username or "")
    for user, name in ((own, "password"), (oauth2.get("client_id"), "client_secret")):
        if secret := service.secrets.get(name):
            yield f"{user or ''}:{secret}"
            yield f"{quote(user or '', safe='')}:{quote(secret, safe='')}"


def _base64(text: str) -> str:
    return b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")
