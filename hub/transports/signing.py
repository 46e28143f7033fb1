"""Standard Webhooks signatures (https://www.standardwebhooks.com): signs requests, verifies webhook calls.

During a rotation both secrets sign: a receiver accepts a request if one signature is valid.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from standardwebhooks import Webhook

from hub.errors import ConfigError, InvalidPayloadError

_SHORTEST, _LONGEST = 24, 64  # bytes of a secret
_TOLERANCE = timedelta(minutes=5)


class Signer:
    """Signs with `signing_secret`, and also with `signing_secret_old` if there is one.

    Raises:
        InvalidPayloadError: a secret is not base64 (with or without `whsec_`). The text names the field, not the value.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._hooks = [_hook(name, secrets[name]) for name in NAMES if secrets.get(name)]

    def headers(self, message_id: str, body: str, now: datetime | None = None) -> dict[str, str]:
        """The headers webhook-id, webhook-timestamp and webhook-signature for a body."""
        now = now or datetime.now(UTC)  # noqa: TID251 - a transport by itself knows no other clock
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(hook.sign(message_id, now, body) for hook in self._hooks),
        }


NAMES = ("signing_secret", "signing_secret_old")


def signer(secrets: Mapping[str, str]) -> Signer | None:
    """A signer, if the service has a signing secret."""
    return Signer(secrets) if secrets.get("signing_secret") else None


def verify(secret: str, headers: Mapping[str, str], body: str, now: datetime) -> bool:
    """Whether a call is signed with `secret`, at most five minutes from `now`. Compares in constant time.

    `Webhook.verify` is not used: it reads this machine's clock.
    """
    message_id = headers.get("webhook-id", "")
    try:
        at = datetime.fromtimestamp(float(headers.get("webhook-timestamp", "")), UTC)
        wanted = _hook("secret", secret).sign(message_id, at, body).encode()
    except (ValueError, OverflowError, OSError, InvalidPayloadError):
        return False
    given = headers.get("webhook-signature", "").encode().split(b" ")
    good = [hmac.compare_digest(wanted, one) for one in given]
    return bool(message_id) and abs(now - at) <= _TOLERANCE and any(good)


def check_secret(field: str, secret: str | None) -> None:
    """Raise `ConfigError` for a secret that is not 24 to 64 bytes in base64, as Standard Webhooks requires."""
    if not secret:
        return
    encoded = secret.removeprefix("whsec_")
    try:
        size = len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except ValueError:
        raise ConfigError("must be whsec_ and base64, as Standard Webhooks requires", field=field) from None
    if not _SHORTEST <= size <= _LONGEST:
        raise ConfigError(
            f"has {size} bytes; Standard Webhooks requires {_SHORTEST} to {_LONGEST} random bytes, in base64 after"
            " whsec_ (`openssl rand -base64 32` generates some)",
            field=field,
        )


def _hook(name: str, secret: str) -> Webhook:
    try:
        return Webhook(secret)
    except Exception:
        raise InvalidPayloadError(f"{name} is not a Standard Webhooks secret (whsec_ and base64)") from None
