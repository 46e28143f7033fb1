"""Limits on incoming request bodies: a minimum rate for each, and bounds on their number and memory.

When a limit is reached, the slowest of the incomplete bodies is dropped. So slow senders cannot keep out others, and a
body that arrives at once is not refused because of slow ones.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from starlette.types import Message, Receive, Scope

from hub.web.addresses import Networks, client_key
from hub.web.problems import Problem
from hub.web.rate_limits import Busy

_CLOSE = {"Connection": "close"}
_KEY = "hub.upload"


class Uploads:
    """The bodies of one server. Used on the event loop's thread only.

    Args:
        most: incomplete bodies in all.
        per_client: incomplete bodies of one client; for `trusted` addresses only `most` applies.
        memory: bytes of bodies in memory, from their arrival to the response.
        grace: seconds that a body may take in addition to its size divided by `rate`.
        rate: minimum rate, in bytes per second.
    """

    def __init__(
        self, *, most: int, per_client: int, memory: int, grace: float, rate: float, trusted: Networks
    ) -> None:
        self._most = most
        self._per_client = per_client
        self._memory = memory
        self.grace = grace
        self.rate = rate
        self._trusted = trusted
        self._coming: dict[Upload, None] = {}
        self._by_client: Counter[str] = Counter()
        self._held = 0

    def upload(self, scope: Scope, receive: Receive) -> Upload | None:
        """The limited body of a request; None if the request has no body."""
        headers = dict(scope["headers"])
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            return None
        client = scope.get("client")
        upload = Upload(self, receive, client_key(client[0]) if client else "?", client[0] if client else "?")
        scope[_KEY] = upload
        return upload

    def enter(self, upload: Upload) -> None:
        """Count an incomplete body; raises `Busy`."""
        own = upload.address not in self._trusted and self._by_client[upload.client] >= self._per_client
        if own:
            self._drop_slowest(lambda other: other.client == upload.client)
        elif len(self._coming) >= self._most:
            self._drop_slowest(lambda _: True)
        self._coming[upload] = None
        self._by_client[upload.client] += 1

    def leave(self, upload: Upload) -> None:
        """Uncount a body that is complete or was dropped."""
        if upload in self._coming:
            del self._coming[upload]
            self._by_client[upload.client] -= 1
            if not self._by_client[upload.client]:
                del self._by_client[upload.client]

    def hold(self, upload: Upload, size: int) -> None:
        """Add `size` bytes, which may be negative, to the memory in use; raises `Busy` when the limit is reached."""
        upload.held += size
        self._held += size
        while size > 0 and self._held > self._memory:
            self._drop_slowest(lambda other: other is not upload and other.held > 0)

    def _drop_slowest(self, which: Callable[[Upload], bool]) -> None:
        slowest = min((u for u in self._coming if u.waits and which(u)), key=Upload.progress, default=None)
        if slowest is None:
            raise Busy
        slowest.drop()


class Upload:
    """One request body.

    Args:
        client: the key that limits count by.
        address: the client's address.
    """

    def __init__(self, uploads: Uploads, receive: Receive, client: str, address: str) -> None:
        self._uploads = uploads
        self._receive = receive
        self.client = client
        self.address = address
        self.held = 0
        self._size = 0
        self._waited = 0.0
        self._begun = 0.0
        self._state = "new"
        self._timeout: asyncio.Timeout | None = None

    @property
    def waits(self) -> bool:
        """Whether the server is waiting for the next part."""
        return self._timeout is not None

    def progress(self) -> float:
        """Bytes per second so far; a body that has just begun counts as fast."""
        return (self._size + 1024) / (asyncio.get_running_loop().time() - self._begun + 1)

    async def receive(self) -> Message:
        """Receive the next part; ASGI's `receive`.

        Raises:
            Problem: 408 it arrives too slowly, 503 it was dropped for faster ones.
            Busy: a limit on number or memory is reached.
        """
        if self._state == "there":
            return await self._receive()
        loop = asyncio.get_running_loop()
        if self._state == "new":
            self._uploads.enter(self)
            self._state, self._begun = "coming", loop.time()
        since = loop.time()
        left = self._uploads.grace + self._size / self._uploads.rate - self._waited
        try:
            async with asyncio.timeout(max(left, 0)) as self._timeout:
                message = await self._receive()
        except TimeoutError:
            raise self._refusal() from None
        finally:
            self._timeout = None
            self._waited += loop.time() - since
        if self._state == "dropped":  # while its last part arrived
            raise self._refusal()
        size = len(message.get("body", b""))
        self._size += size
        if message["type"] != "http.request" or not message.get("more_body"):
            self._state = "there"
            self._uploads.leave(self)
        self._uploads.hold(self, size)
        return message

    def drop(self) -> None:
        """Stop waiting for this body: another one needs its place."""
        self._state = "dropped"
        self._uploads.leave(self)
        self._uploads.hold(self, -self.held)
        if self._timeout is not None:
            self._timeout.reschedule(0)

    def release(self) -> None:
        """Release the memory of what arrived so far."""
        self._uploads.hold(self, -self.held)

    def close(self) -> None:
        """Release everything at the end of the request."""
        self._uploads.leave(self)
        self.release()

    def _refusal(self) -> Problem:
        if self._state == "dropped":
            why = "the body arrived more slowly than others, and its place was needed"
            return Problem(503, why, headers={**_CLOSE, "Retry-After": "1"})
        self._uploads.leave(self)
        return Problem(
            408, f"the body arrived more slowly than {self._uploads.rate:g} bytes per second", headers=_CLOSE
        )


def release(scope: Scope) -> None:
    """Release the memory of a request's body: it was written or dropped."""
    upload = scope.get(_KEY)
    if isinstance(upload, Upload):
        upload.release()
