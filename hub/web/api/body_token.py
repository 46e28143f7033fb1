"""The API token in the body of Moodle's `local_webhooks`, found without reading the body as JSON.

Parsing costs a hundred times what this search costs, and anybody can send a body.
"""

from __future__ import annotations

import re
from itertools import islice

_MEMBER = re.compile(rb'"token"[ \t\r\n]*:[ \t\r\n]*"(hub_[A-Za-z0-9_-]{1,100})"')
_LOOKED_AT = 16  # members of that name, wherever they are in the JSON


def candidates(body: bytes) -> list[str]:
    """At most two texts that may be the token: the first and the last member of that name that looks like one.

    Whoever finds one of them to be a token still has to see, in the parsed body, that it is where it belongs.
    """
    found = [match[1].decode() for match in islice(_MEMBER.finditer(body), _LOOKED_AT)]
    return list(dict.fromkeys([found[-1], found[0]])) if found else []
