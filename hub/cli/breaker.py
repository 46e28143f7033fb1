"""`hub breaker`: circuits of services."""

from __future__ import annotations

from typing import Annotated

import typer

from hub.cli.common import JsonFlag, open_hub, open_records, usage
from hub.cli.output import print_json, show_object, show_rows

app = typer.Typer(no_args_is_help=True, help="Circuit breakers, one per service.", rich_markup_mode=None)


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List the circuits of all services."""
    with open_records() as hub:
        rows = hub.views.overview.breakers()
    show_rows(
        rows,
        ("service", "state", "failures", "retry_at", "changed_at", "responses"),
        as_json=as_json,
        empty="no services yet",
    )


@app.command()
def show(service: str, as_json: JsonFlag = False) -> None:
    """Show the circuit of a service."""
    with open_records() as hub:
        row = hub.views.overview.breaker(service)
    show_object(row, as_json=as_json)


@app.command()
def reset(
    services: Annotated[list[str] | None, typer.Argument(metavar="[SERVICE]...")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Reset all circuits.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Close circuits now. Parked tasks become due."""
    if bool(services) == all_:
        raise usage("give services, or --all")
    from hub.operations.circuits import reset_circuits

    with open_hub() as hub:
        chosen = hub.configuration.services() if all_ else [hub.configuration.service(name) for name in services or []]
        closed = [s.name for s in chosen if reset_circuits(hub, s)]
    if as_json:
        print_json({"reset": closed})
    else:
        print(f"{len(closed)} circuit(s) closed" if closed else "nothing to do: already closed")
