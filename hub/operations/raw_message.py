"""The stored bytes of an inbound message that is not JSON, raw or as a hex dump.

The bytes are not masked, because their meaning is unknown. They need the role or scope `manage`.
"""

from __future__ import annotations

from hub.app.lifecycle import Hub
from hub.errors import NotFoundError

PREVIEW = 1024  # bytes
_WIDTH = 16


def raw_message(hub: Hub, delivery_id: int) -> bytes:
    """The stored bytes; raises `NotFoundError` if the delivery has none."""
    return hub.views.deliveries.raw_message(delivery_id)


def hex_preview(hub: Hub, delivery_id: int, *, limit: int = PREVIEW) -> str | None:
    """A hex dump of the first `limit` bytes; None if the delivery has no bytes."""
    try:
        return hex_dump(hub.views.deliveries.raw_message(delivery_id), limit=limit)
    except NotFoundError:
        return None


def hex_dump(data: bytes, *, limit: int = PREVIEW) -> str:
    """A hex dump of at most `limit` bytes, 16 per line: offset, hex, printable ASCII. Ends with the number left out."""
    lines = []
    for start in range(0, min(len(data), limit), _WIDTH):
        part = data[start : min(start + _WIDTH, limit)]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{start:08x}  {part.hex(' '):<{_WIDTH * 3 - 1}}  |{text}|")
    if len(data) > limit:
        lines.append(f"… {len(data) - limit} more bytes")
    return "\n".join(lines)
