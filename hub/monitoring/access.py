"""Access to `/metrics`, for the web server and the exporter."""

from __future__ import annotations

import hmac


def may_scrape(authorization: str, token: str | None) -> bool:
    """Return whether a request may read `/metrics`. Compares in constant time.

    Args:
        authorization: the header `Authorization` of the request, "" when there is none.
        token: `HUB_METRICS_TOKEN`; None or "" allows every request.
    """
    return not token or hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())
