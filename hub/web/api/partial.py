"""The OpenAPI schema of a PATCH: the members of a definition, none of them required."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def partial(kind: type[BaseModel]) -> dict[str, Any]:
    """The `requestBody` of a change to what `kind` defines."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # FastAPI has them: the endpoint that adds takes the whole definition
    schema.pop("required", None)
    for member in schema["properties"].values():
        member.pop("default", None)  # what is left out stays
    schema["title"] = f"{kind.__name__.removesuffix('Spec')}Changes"
    schema["properties"]["version"] = {"type": "integer", "description": "As read; counts when there is no If-Match."}
    schema["minProperties"] = 1
    return {"required": True, "content": {"application/json": {"schema": schema}}}
