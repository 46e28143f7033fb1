"""Parameters and request bodies that several endpoints of the API share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_BIG = 2**63 - 1

Id = Annotated[int, Path(ge=1, le=_BIG)]
Ids = Annotated[list[Annotated[int, Field(ge=1, le=_BIG)]], Field(min_length=1, max_length=1000)]
ServiceName = Annotated[str, Path(max_length=100, description="Name of a service.")]
SourceName = Annotated[str, Path(max_length=100, description="Name of an event source.")]
RuleName = Annotated[str, Path(max_length=100, description="Name of a rule.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Maximum number of items per page.")]
Before = Annotated[int | None, Query(ge=1, le=_BIG, description="`next` of the previous page.")]
_Text = Query(max_length=255, pattern=r"^[^\x00]*$")
OfService = Annotated[str | None, _Text]
OfRule = Annotated[str | None, _Text]
OfEvent = Annotated[
    str | None, Query(max_length=255, pattern=r"^[^\x00]*$", description="A name, or a prefix and `*`.")
]


def _given(at: datetime) -> datetime:
    """A given time in UTC. A time without a zone is taken as UTC."""
    if not 1970 <= at.year < 9000:
        raise ValueError("must lie between 1970 and 9000")
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


Moment = Annotated[datetime, AfterValidator(_given)]
Since = Annotated[Moment | None, Query(description="ISO 8601; a time without a zone is UTC.")]


class Given(BaseModel):
    """A request body with these members and no others."""

    model_config = ConfigDict(extra="forbid")
