"""Request bodies on their way in: a least rate for each, and limits on how many there are and what they hold.

A body that is there at once is never refused for those that are not: when a limit is reached, the slowest of the bodies
that are being waited for is given up. So slow senders take nothing from others, whoever they are.
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
        most: bodies being waited for, in all.
        per_client: of one client; clients at `trusted` addresses are only bounded by `most`.
        memory: bytes of bodies held, from their arrival to the response.
        grace: seconds that a body may take, in addition to
        rate: one second for so many bytes of it.
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
        """The body of a request, to be received through it; None: the request has none."""
        headers = dict(scope["headers"])
        if headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers:
            return None
        client = scope.get("client")
        upload = Upload(self, receive, client_key(client[0]) if client else "?", client[0] if client else "?")
        scope[_KEY] = upload
        return upload

    def enter(self, upload: Upload) -> None:
        """Count a body that is being waited for; raises `Busy`."""
        own = upload.address not in self._trusted and self._by_client[upload.client] >= self._per_client
        if own:
            self._give_up(lambda other: other.client == upload.client)
        elif len(self._coming) >= self._most:
            self._give_up(lambda _: True)
        self._coming[upload] = None
        self._by_client[upload.client] += 1

    def leave(self, upload: Upload) -> None:
        """Count a body no more: it is there, or has been given up."""
        if upload in self._coming:
            del self._coming[upload]
            self._by_client[upload.client] -= 1
            if not self._by_client[upload.client]:
                del self._by_client[upload.client]

    def hold(self, upload: Upload, size: int) -> None:
        """Account for bytes of a body, or for fewer; raises `Busy` when there is no memory for them."""
        upload.held += size
        self._held += size
        while size > 0 and self._held > self._memory:
            self._give_up(lambda other: other is not upload and other.held > 0)

    def _give_up(self, which: Callable[[Upload], bool]) -> None:
        slowest = min((u for u in self._coming if u.waits and which(u)), key=Upload.progress, default=None)
        if slowest is None:
            raise Busy
        slowest.give_up()


class Upload:
    """One body.

    Args:
        client: what limits count for.
        address: where it comes from.
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
        """Whether the server waits for more of it now."""
        return self._timeout is not None

    def progress(self) -> float:
        """Bytes per second so far; a body that has just begun counts as quick."""
        return (self._size + 1024) / (asyncio.get_running_loop().time() - self._begun + 1)

    async def receive(self) -> Message:
        """The next part; ASGI's `receive`.

        Raises:
            Problem: 408 it comes too slowly, 503 it was given up for others.
            Busy: there is no place or no memory for it.
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
        if self._state == "given up":  # with its last part arriving at that moment
            raise self._refusal()
        size = len(message.get("body", b""))
        self._size += size
        if message["type"] != "http.request" or not message.get("more_body"):
            self._state = "there"
            self._uploads.leave(self)
        self._uploads.hold(self, size)
        return message

    def give_up(self) -> None:
        """End the wait for it: others need its place."""
        self._state = "given up"
        self._uploads.leave(self)
        self._uploads.hold(self, -self.held)
        if self._timeout is not None:
            self._timeout.reschedule(0)

    def dropped(self) -> None:
        """What came so far is not held any more."""
        self._uploads.hold(self, -self.held)

    def close(self) -> None:
        """The request is over."""
        self._uploads.leave(self)
        self.dropped()

    def _refusal(self) -> Problem:
        if self._state == "given up":
            why = "the body came more slowly than those of others, and their place was needed"
            return Problem(503, why, headers={**_CLOSE, "Retry-After": "1"})
        self._uploads.leave(self)
        return Problem(408, f"the body came more slowly than {self._uploads.rate:g} bytes a second", headers=_CLOSE)


def dropped(scope: Scope) -> None:
    """Say that nothing of a request's body is held any more: it was written, or thrown away."""
    upload = scope.get(_KEY)
    if isinstance(upload, Upload):
        upload.dropped()
