"""Types of fields that definitions share: names, lines, headers."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field


def _named(value: str) -> str:
    """A name in any script, in Unicode's composed form, so that what looks the same is the same."""
    value = unicodedata.normalize("NFC", value)
    if not value[0].isalnum() or not all(
        c.isalnum() or c in " ._-" or unicodedata.category(c)[0] == "M" for c in value
    ):
        raise ValueError("may hold letters, digits, spaces and . _ - and starts with a letter or a digit")
    return value


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_named)]


HEADER = re.compile(r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")


def no_control(value: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("control characters are not allowed")
    return value


Line = Annotated[str, Field(max_length=4096), BeforeValidator(lambda v: no_control(v) if isinstance(v, str) else v)]


Headers = dict[Annotated[str, Field(pattern=HEADER.pattern)], Line]
