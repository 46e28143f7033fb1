"""Who may read `/metrics`, in the web server and in the exporter."""

from __future__ import annotations

import hmac


def may_scrape(authorization: str, token: str | None) -> bool:
    """Whether a request may read `/metrics`. Compares in constant time.

    Args:
        authorization: the header `Authorization` of the request, "" when there is none.
        token: `HUB_METRICS_TOKEN`; None or "": everybody may.
    """
    return not token or hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode())
