"""Stage 9: the last look at a text before it leaves a transport: no secret of the service may be in it."""

from __future__ import annotations

from urllib.parse import quote

from hub.models import Service

_MIN = 4  # masking shorter ones would shred every text and say what they are


def without_secrets(text: str, service: Service) -> str:
    """`text` with each secret of `service`, plain or percent-encoded, replaced by `***`."""
    for secret in sorted(service.secrets.values(), key=len, reverse=True):
        for form in (secret, quote(secret, safe="")):
            if len(form) >= _MIN:
                text = text.replace(form, "***")
    return text
