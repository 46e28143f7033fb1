"""ETag and If-Match: optimistic locking of rules and services."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Header, Response

from hub.web.problems import Problem

IfMatch = Annotated[
    str | None,
    Header(description='The ETag that was read, such as `"3"`; 412 if the resource has changed since.', max_length=100),
]
_ETAG = re.compile(r'\s*(?:W/)?"?(\d{1,9})"?\s*')


def expected(if_match: str | None) -> int | None:
    """The version that the caller has read; None accepts any version.

    Raises:
        Problem: 412, the header is not an ETag of the hub.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match)
    if found is None:
        raise Problem(412, "is not an ETag of the hub; read the resource again", field="If-Match")
    return int(found[1])


def tagged(response: Response, thing: dict[str, Any]) -> dict[str, Any]:
    """Return `thing`; its version becomes the ETag of the response."""
    response.headers["ETag"] = f'"{thing["version"]}"'
    return thing


def changes(
    document: dict[str, Any], if_match: str | None, *, read_only: frozenset[str]
) -> tuple[dict[str, Any], int | None]:
    """(members that a PATCH changes, the version it was made for). Read-only members are left out.

    A `version` in the document is used if there is no If-Match.
    """
    version = expected(if_match)
    given = document.get("version")
    if version is None and given is not None:
        if type(given) is not int:
            raise Problem(422, "must be the number that was read", field="version")
        version = given
    return {k: v for k, v in document.items() if k not in read_only and k != "version"}, version
