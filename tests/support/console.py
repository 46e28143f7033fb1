"""The console without a browser: pages and forms over plain HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from hub.app.lifecycle import Hub
from tests.support import clients


@contextmanager
def signed_in(hub: Hub, url: str, user: str) -> Iterator[clients.Client]:
    """A client with a session of that user's; posts carry the token of the forms."""
    secret = hub.accounts.sessions.start(hub.accounts.users.get(user).id)
    with clients.Client(base_url=url, cookies={"hub_session": secret}) as client:
        found = re.search(r'data-csrf="([^"]+)"', client.get("/access").text)
        assert found
        client.headers["X-CSRF-Token"] = found[1]
        yield client
