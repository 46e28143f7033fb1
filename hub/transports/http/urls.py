"""Join a service's base URL and a rule's endpoint. No endpoint leads out of the base URL.

The endpoint is relative to the base path, also with a leading slash: base `https://crm/api/v1` and endpoint
`/contacts` make `https://crm/api/v1/contacts`. An absolute URL is accepted when it has the same origin and is
below the base path. The same holds for values that a template inserts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from hub.domain.templates import MAX_ENDPOINT
from hub.domain.urls import check_brackets
from hub.errors import InvalidPayloadError

_SAFE = "%/:=&?~+!$,;'@()*[]-._"
_BARE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PLAIN = re.compile(r"[A-Za-z0-9/_=&?~-]*")
_PLACEHOLDER = re.compile(r"\{\{[^{}]*\}\}")
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Base:
    """A parsed base URL, percent-encoded where needed."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    user: str | None

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def parse_base(url: str) -> Base:
    """Parse a base URL; raises `InvalidPayloadError`, whose text omits the URL, since it may contain a user."""
    try:
        parts = urlsplit(url)
        check_brackets(parts.netloc)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in PORTS or not host:
        raise InvalidPayloadError("base_url is not an http or https URL")
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError:
            raise InvalidPayloadError("base_url: not a host name") from None
    user = unquote(parts.username) if parts.username else None
    return Base(scheme, host, port or PORTS[scheme], _encode(parts.path), _encode(parts.query), user)


def target(base: Base, endpoint: str) -> str:
    """The path and query of the request line.

    Raises:
        InvalidPayloadError: the endpoint is on another origin, outside the base path, or too long.
    """
    if len(endpoint) > MAX_ENDPOINT:
        raise InvalidPayloadError(f"the endpoint has more than {MAX_ENDPOINT} characters")
    if _SCHEME.match(endpoint):
        endpoint = _relative(base, endpoint)
    path, _, query = endpoint.partition("#")[0].partition("?")
    if not _PLAIN.fullmatch(path):
        _no_dots(path)
        path = _encode(path)
    full = f"{base.path.rstrip('/')}/{path.lstrip('/')}" if path else base.path or "/"
    query = "&".join(part for part in (base.query, _encode(query)) if part)
    return f"{full}?{query}" if query else full


def check_endpoint(base_url: str, endpoint: str) -> None:
    """Raise `InvalidPayloadError` for an endpoint that is unusable with any event.

    Placeholders are replaced by a harmless value. One in the authority of a URL cannot be checked before it is filled.
    """
    if "{{" in endpoint.partition("://")[2].partition("/")[0]:
        return
    target(parse_base(base_url), _PLACEHOLDER.sub("x", endpoint))


def _relative(base: Base, url: str) -> str:
    other = parse_base(url)
    if other.origin != base.origin or other.user:
        raise InvalidPayloadError("the endpoint is a URL of another origin than the service's base_url")
    path, root = other.path, base.path.rstrip("/")
    if not f"{path}/".startswith(f"{root}/"):
        raise InvalidPayloadError("the endpoint is a URL outside the service's base_url")
    return path[len(root) :] + (f"?{other.query}" if other.query else "")


def _no_dots(path: str) -> None:
    """Refuse `..` in each form that a server may resolve: percent-encoded, after an encoded slash, with backslashes."""
    if any(part in (".", "..") for part in re.split(r"[/\\;]", unquote(path))):
        raise InvalidPayloadError("the endpoint has '.' or '..' as a path segment")


def _encode(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    return quote(_BARE_PERCENT.sub("%25", text), safe=_SAFE, errors="replace")
