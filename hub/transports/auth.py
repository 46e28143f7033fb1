"""Check a service's secrets, and build its authentication header. OAuth is in `oauth`."""

from __future__ import annotations

import base64

from hub.errors import SecretsError
from hub.models import Service

_TRY_AGAIN = 60.0  # seconds; another process may have the key, or a person may enter the secrets again


def check_secrets(service: Service) -> None:
    """Raise `SecretsError` for a service whose secrets cannot be decrypted."""
    if service.secrets_unreadable:
        raise SecretsError(
            f"the secrets of service {service.name!r} cannot be decrypted with any key in HUB_SECRET_KEYS; add the key"
            " they were written with, or edit the service and enter its secrets again",
            retry_after=_TRY_AGAIN,
        )


def authorization(service: Service, url_user: str | None) -> dict[str, str]:
    """The credentials header of `service`; empty for `none` and `oauth2`.

    Args:
        url_user: the user that `base_url` names (`https://user@host`), for basic authentication.
    """
    secrets, options = service.secrets, service.options
    kind = service.auth_type
    if kind == "none" and url_user:
        kind = "basic"
    if kind == "bearer":
        return {"Authorization": f"Bearer {secrets.get('token', '')}"}
    if kind == "apikey":
        return {str(options.get("apikey_header") or "X-API-Key"): secrets.get("token", "")}
    if kind == "basic":
        pair = f"{options.get('username') or url_user or ''}:{secrets.get('password', '')}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return {}
