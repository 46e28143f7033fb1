"""Apply `example.yaml`, as `hub apply` does."""

from __future__ import annotations

from importlib.resources import files

from hub.app.lifecycle import Hub
from hub.config.yaml_file import parse
from hub.operations import apply


def install(hub: Hub, variables: dict[str, str]) -> tuple[int, int]:
    """Create the services and rules; returns how many of each.

    Args:
        variables: values of `${NAME}`.
    """
    text = files("hub.demo").joinpath("example.yaml").read_text("utf-8")
    plan = apply.plan(parse(text, variables.get), hub.registry, hub.schedule)
    apply.execute(plan, hub.registry, hub.schedule)
    return len(plan.services), len(plan.rules)
