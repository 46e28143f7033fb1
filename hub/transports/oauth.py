"""OAuth 2 client credentials: one token per service, fetched by one thread, renewed before it expires.

A refusal of the token endpoint is remembered for some seconds, so that a wrong secret does not cost one token request
for each attempt.
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

_LIFETIME = 3600.0  # seconds, when the server does not say
_LONGEST = 86_400.0  # seconds; a token is renewed once a day at least
_REFUSED = (5.0, 60.0)  # seconds for which a refusal is remembered: the first one, doubling up to the last; +-20 %
_KEPT = 5.0  # seconds for which a new token is used although the service has refused it
_EARLY = 30.0  # renewed so many seconds before the end, for short-lived ones at nine tenths
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,60}")

Post = Callable[[str, dict[str, str], bytes, Deadline], tuple[int, bytes]]
"""POST to a URL; gives status and body."""


class ClientCredentials:
    """The token of one service.

    Args:
        options: token_url, client_id, scope.
        secret: the client secret.
        post: sends over the service's own connections, so guard, TLS files and deadline hold here too.
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
        self._accepted: str | None = None  # the last token that the service took
        self._refusal: tuple[str, int] | None = None  # text and status
        self._refusals = 0
        self._ask_again = 0.0
        self._in_body = False  # some servers take the secret in the form only
        if not self._url or not self._id:
            raise InvalidPayloadError("oauth2 needs token_url and client_id")

    @property
    def current(self) -> str | None:
        """The token as it is, good or not."""
        return self._token

    def token(self, deadline: Deadline) -> str:
        """A token that is good now; threads that come while one is fetched wait for it.

        Raises:
            TransportError: the token endpoint refuses, fails or does not answer before the deadline; `.sent` is
                False. A refusal is raised again without a request while it is remembered.
        """
        token = self._token
        if token is not None and time.monotonic() < self._until:
            return token
        try:
            if not self._lock.acquire(timeout=deadline.remaining):
                raise TimedOutError("the token endpoint did not answer in time")
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
        """Record that the service took this token."""
        self._accepted = token

    def refused(self, token: str) -> bool:
        """Record that the service did not take this token. Returns whether another token may help.

        A token that was good before is dropped. One that the service never took is kept for some seconds: a service
        that refuses every token must not cost one token request for each attempt.
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
            raise RejectedError(f"{text}; it is asked again in {self._ask_again - now:.0f} s", status=status)
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
        answer = _parse(body)
        if status != 200:
            code = answer.get("error")
            what = f" ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else ""
            raise RejectedError(f"the token endpoint answered HTTP {status}{what}", status=status)
        token = answer.get("access_token")
        if not isinstance(token, str) or not token:
            raise RejectedError("the token endpoint answered without an access_token", status=502)
        try:
            return token, min(max(1.0, float(answer.get("expires_in") or _LIFETIME)), _LONGEST)
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
