"""Standard Webhooks signatures: made on outgoing requests (stage 9), checked on incoming calls.

While a secret is rotated both sign: the receiver accepts a request when one signature fits.
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
    """Signs with `signing_secret`, and with `signing_secret_old` too when there is one.

    Raises:
        InvalidPayloadError: a secret is not base64 (with or without `whsec_`); names the field, not the value.
    """

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._hooks = [_hook(name, secrets[name]) for name in NAMES if secrets.get(name)]

    def headers(self, message_id: str, body: str, now: datetime | None = None) -> dict[str, str]:
        """webhook-id, webhook-timestamp and webhook-signature for this body."""
        now = now or datetime.now(UTC)  # noqa: TID251 - a transport by itself knows no other clock
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(hook.sign(message_id, now, body) for hook in self._hooks),
        }


NAMES = ("signing_secret", "signing_secret_old")


def signer(secrets: Mapping[str, str]) -> Signer | None:
    """A signer when the service has a signing secret."""
    return Signer(secrets) if secrets.get("signing_secret") else None


def fits(secret: str, headers: Mapping[str, str], body: str, now: datetime) -> bool:
    """Whether a call is signed with `secret`, not more than five minutes from `now`; compared in constant time.

    `Webhook.verify` would look at this machine's clock.
    """
    message_id = headers.get("webhook-id", "")
    try:
        at = datetime.fromtimestamp(float(headers.get("webhook-timestamp", "")), UTC)
        wanted = _hook("it", secret).sign(message_id, at, body).encode()
    except (ValueError, OverflowError, OSError, InvalidPayloadError):
        return False
    given = headers.get("webhook-signature", "").encode().split(b" ")
    good = [hmac.compare_digest(wanted, one) for one in given]
    return bool(message_id) and abs(now - at) <= _TOLERANCE and any(good)


def check_secret(field: str, secret: str | None) -> None:
    """Raises `ConfigError` when it is not what Standard Webhooks calls a secret: 24 to 64 bytes, in base64."""
    if not secret:
        return
    encoded = secret.removeprefix("whsec_")
    try:
        size = len(base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True))
    except ValueError:
        raise ConfigError("must be whsec_ and base64, as Standard Webhooks says", field=field) from None
    if not _SHORTEST <= size <= _LONGEST:
        raise ConfigError(
            f"has {size} bytes; Standard Webhooks asks for {_SHORTEST} to {_LONGEST} random bytes, in base64 after"
            " whsec_ (`openssl rand -base64 32` makes some)", field=field,
        )  # fmt: skip


def _hook(name: str, secret: str) -> Webhook:
    try:
        return Webhook(secret)
    except Exception:
        raise InvalidPayloadError(f"{name} is no Standard Webhooks secret (whsec_ and base64)") from None
