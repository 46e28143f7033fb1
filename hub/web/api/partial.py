"""OpenAPI schema of a PATCH: the members of a definition, none of them required."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def partial(kind: type[BaseModel]) -> dict[str, Any]:
    """The `requestBody` of a change to a `kind`."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # FastAPI has them from the endpoint that adds
    schema.pop("required", None)
    for member in schema["properties"].values():
        member.pop("default", None)  # a missing member stays unchanged
    schema["title"] = f"{kind.__name__.removesuffix('Spec')}Changes"
    schema["properties"]["version"] = {
        "type": "integer",
        "description": "The version that was read; used if there is no If-Match.",
    }
    schema["minProperties"] = 1
    return {"required": True, "content": {"application/json": {"schema": schema}}}
