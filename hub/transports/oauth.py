"""OAuth 2 client credentials (RFC 6749 section 4.4): one token per service, renewed before it expires.

A refusal of the token endpoint is cached for some seconds, so that a wrong secret does not cause one token request
per attempt.
"""

from __future__ import annotations

import base64
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from hub.codec import loads
from hub.errors import (
    DeliveryError,
    InvalidPayloadError,
    PayloadError,
    RejectedError,
    TimedOutError,
)
from hub.models import JSON
from hub.transports.base import Deadline

_LIFETIME = 3600.0  # seconds, when the response has no `expires_in`
_LONGEST = 86_400.0  # seconds; a token is renewed once a day at least
_REFUSED = (5.0, 60.0)  # seconds for which a refusal is cached: the first, doubling up to the second; +-20 %
_KEPT = 5.0  # seconds for which a new token is used although the service refused it
_EARLY = 30.0  # seconds before its end at which a token is renewed; short-lived ones at 90 % of their lifetime
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")

Post = Callable[[str, dict[str, str], bytes, Deadline], tuple[int, bytes]]
"""POST to a URL; returns status and body."""


class ClientCredentials:
    """The token of one service.

    Args:
        options: token_url, client_id, scope.
        secret: the client secret.
        post: sends over the service's connections, with the same egress guard, TLS files and deadline.
    """

    def __init__(self, options: Mapping[str, JSON], secret: str, post: Post) -> None:
        self._url = str(options.get("token_url") or "")
        self._id = str(options.get("client_id") or "")
        self._scope = str(options.get("scope") or "")
        self._secret = secret
        self._post = post
        self._lock = threading.Lock()
        self._token: str | None = None
        self._until = 0.0
        self._fetched = 0.0
        self._accepted: str | None = None  # the last token that the service accepted
        self._refusal: tuple[str, int] | None = None  # text and status
        self._refusals = 0
        self._ask_again = 0.0
        self._in_body = False  # some servers accept the secret only in the form
        if not self._url or not self._id:
            raise InvalidPayloadError("oauth2 needs token_url and client_id")

    @property
    def current(self) -> str | None:
        """The current token, valid or not."""
        return self._token

    def token(self, deadline: Deadline) -> str:
        """Return a valid token. One thread fetches it; the others wait.

        Raises:
            TransportError: the token endpoint refuses, fails or does not respond before the deadline; `.sent` is
                False. A refusal is raised again without a request while it is remembered.
        """
        token = self._token
        if token is not None and time.monotonic() < self._until:
            return token
        try:
            if not self._lock.acquire(timeout=deadline.remaining):
                raise TimedOutError("the token endpoint did not respond in time")
            try:
                token = self._token
                if token is None or time.monotonic() >= self._until:
                    token = self._renew(deadline)
                return token
            finally:
                self._lock.release()
        except DeliveryError as e:
            e.sent = False
            raise

    def accepted(self, token: str) -> None:
        """Record that the service accepted this token."""
        self._accepted = token

    def refused(self, token: str) -> bool:
        """Record that the service refused this token. Returns whether another token may help.

        A token that was accepted before is dropped. One that was never accepted is kept for some seconds: a service
        that refuses every token must not cause one token request per attempt.
        """
        if token != self._token:
            return True
        if token == self._accepted:
            self._token = None
            return True
        self._until = min(self._until, self._fetched + _KEPT)
        return False

    def _renew(self, deadline: Deadline) -> str:
        now = time.monotonic()
        if self._refusal is not None and now < self._ask_again:
            text, status = self._refusal
            raise RejectedError(f"{text}; the next request to it is in {self._ask_again - now:.0f} s", status=status)
        try:
            token, seconds = self._fetch(deadline)
        except RejectedError as e:
            if not e.retriable:
                self._refusals += 1
                first, longest = _REFUSED
                pause = min(first * 2 ** min(self._refusals - 1, 10), longest)
                self._refusal = str(e), e.status or 0
                self._ask_again = time.monotonic() + pause * random.uniform(0.8, 1.2)  # noqa: S311 - spread, not secrecy
            raise
        self._refusal, self._refusals = None, 0
        self._token, self._fetched = token, time.monotonic()
        self._until = self._fetched + max(0.0, seconds - min(_EARLY, seconds / 10))
        return token

    def _fetch(self, deadline: Deadline) -> tuple[str, float]:
        status, body = self._ask(deadline)
        if status in (400, 401) and not self._in_body:
            self._in_body = True
            status, body = self._ask(deadline)
            if status != 200:
                self._in_body = False
        response = _parse(body)
        if status != 200:
            code = response.get("error")
            what = f" ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else ""
            raise RejectedError(f"the token endpoint responded with HTTP {status}{what}", status=status)
        token = response.get("access_token")
        if not isinstance(token, str) or not token:
            raise RejectedError("the token endpoint responded without an access_token", status=502)
        try:
            return token, min(max(1.0, float(response.get("expires_in") or _LIFETIME)), _LONGEST)
        except (TypeError, ValueError, OverflowError):
            return token, _LIFETIME

    def _ask(self, deadline: Deadline) -> tuple[int, bytes]:
        form = {"grant_type": "client_credentials"}
        if self._scope:
            form["scope"] = self._scope
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        if self._in_body:
            form |= {"client_id": self._id, "client_secret": self._secret}
        else:
            pair = f"{quote(self._id, safe='')}:{quote(self._secret, safe='')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        return self._post(self._url, headers, urlencode(form).encode(), deadline)


def _parse(body: bytes) -> dict[str, JSON]:
    try:
        value = loads(body)
    except PayloadError:
        return {}
    return value if isinstance(value, dict) else {}
