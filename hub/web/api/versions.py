"""ETag and If-Match: two editors do not overwrite each other."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Header, Response

from hub.web.problems import Problem

IfMatch = Annotated[
    str | None,
    Header(description='The ETag of what was read, like `"3"`: 412 if it has changed since.', max_length=100),
]
_ETAG = re.compile(r'\s*(?:W/)?"?(\d{1,9})"?\s*')


def expected(if_match: str | None) -> int | None:
    """The version an editor saw; None: whatever there is.

    Raises:
        Problem: 412, it is none of the hub's ETags.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match)
    if found is None:
        raise Problem(412, "is no ETag of the hub's; read it again", field="If-Match")
    return int(found[1])


def tagged(response: Response, thing: dict[str, Any]) -> dict[str, Any]:
    """The same, with its version as the response's ETag."""
    response.headers["ETag"] = f'"{thing["version"]}"'
    return thing


def changes(
    document: dict[str, Any], if_match: str | None, *, read_only: frozenset[str]
) -> tuple[dict[str, Any], int | None]:
    """(what a PATCH changes, the version it was made for); what is only to be read is left out.

    A `version` in the document counts when there is no If-Match.
    """
    version = expected(if_match)
    given = document.get("version")
    if version is None and given is not None:
        if type(given) is not int:
            raise Problem(422, "must be the number that was read", field="version")
        version = given
    return {k: v for k, v in document.items() if k not in read_only and k != "version"}, version
