"""Stage 9: the header by which the hub proves itself to an HTTP service (OAuth has its own module)."""

from __future__ import annotations

import base64

from hub.models import Service


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
