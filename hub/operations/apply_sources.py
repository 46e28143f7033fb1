"""The `sources` part of a configuration file: what applying it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hub.config.definitions import parse_spec
from hub.config.sources import SourceSpec, source_document
from hub.domain.text import MASK
from hub.errors import ConfigError
from hub.models import Source
from hub.operations.changes import Change, compare
from hub.store.sources import SourceStore
from hub.transports.masking import masked_url


def source_changes(specs: Sequence[SourceSpec], known: Sequence[Source]) -> list[Change]:
    """One change per source of the file, the password masked."""
    by_name = {source.name: source for source in known}
    return [_change(by_name.get(spec.name), spec) for spec in specs]


def pruned_sources(document: Mapping[str, Any], specs: Sequence[SourceSpec], known: Sequence[Source]) -> list[Change]:
    """Sources that the file's list does not name; none when the file has no list."""
    if not isinstance(document.get("sources"), list):
        return []
    named = {spec.name for spec in specs}
    return [Change("source", source.name, "delete") for source in known if source.name not in named]


def write_sources(store: SourceStore, specs: Sequence[SourceSpec], changes: Sequence[Change]) -> None:
    """Add, change and delete sources as `changes` says."""
    actions = {change.name: change.action for change in changes if change.kind == "source"}
    for spec in specs:
        if actions[spec.name] == "add":
            store.add(spec)
        elif actions[spec.name] == "change":
            store.update(spec.name, spec.model_dump())
    for name, action in actions.items():
        if action == "delete":
            store.delete(name)


def _change(old: Source | None, spec: SourceSpec) -> Change:
    after = _shown(spec)
    if old is None:
        return compare("source", spec.name, False, {}, after)
    try:
        before_spec: SourceSpec = parse_spec(SourceSpec, source_document(old, secrets=True))
    except ConfigError:  # the file may mend it
        return compare("source", spec.name, True, {}, after)
    found = compare("source", spec.name, True, _shown(before_spec), after)
    before, secrets = before_spec.split()[1], spec.split()[1]
    if old.secrets_unreadable or before != secrets:
        fields = {**found.fields, "password": (MASK if before else None, f"{MASK} (other)" if secrets else None)}
        return Change("source", spec.name, "change", fields)
    return found


def _shown(spec: SourceSpec) -> dict[str, Any]:
    return spec.model_dump() | {"url": masked_url(spec.url)}
