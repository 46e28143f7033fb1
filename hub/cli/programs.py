"""`hub up web worker scheduler exporter migrate demo keygen rotate-secrets`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from hub.cli.common import JsonFlag, get_settings, open_hub
from hub.cli.output import err, print_json

if TYPE_CHECKING:
    from hub.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, web, worker, scheduler, exporter, migrate, demo, keygen):
        app.command()(command)
    app.command("rotate-secrets")(rotate_secrets)


def up() -> None:
    """Run everything in one process: web, workers, scheduler, metrics. Needs no database or broker server."""
    from hub.programs import up as running

    with _process() as settings:
        raise typer.Exit(running.up(settings, announce=_say(settings)))


def web() -> None:
    """Run the web server: API, webhooks, console, /metrics."""
    from hub.programs import up as running

    with _process() as settings:
        raise typer.Exit(running.web(settings, announce=_say(settings)))


def worker(
    processes: Annotated[int | None, typer.Option("--processes", "-p", min=1, help="Default: HUB_PROCESSES.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", "-t", min=1, help="Default: HUB_THREADS.")] = None,
) -> None:
    """Run Dramatiq workers that deliver tasks."""
    from hub.programs import up as running

    with _process() as settings:
        running.worker(settings, processes=processes, threads=threads)


def scheduler() -> None:
    """Run periodiq, which sends one tick per minute. More than one scheduler is safe."""
    from hub.programs import up as running

    with _process() as settings:
        running.scheduler(settings)


def exporter() -> None:
    """Serve /metrics as a process of its own."""
    from hub.programs.exporter import serve

    with _process() as settings:
        serve(settings)


def migrate(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a migration is missing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Apply missing migrations to the database."""
    from hub.app.lifecycle import build
    from hub.store.migrate import check as to_apply
    from hub.store.migrate import migrate as apply

    with build(get_settings(), role="cli", check=False) as hub:
        names = to_apply(hub.db) if check else apply(hub.db)
    if as_json:
        print_json({"pending" if check else "applied": names})
    else:
        for name in names:
            print(name)
        err.print(f"{len(names)} migration(s) {'missing' if check else 'applied'}")
    if check and names:
        raise typer.Exit(1)


def demo(
    as_json: JsonFlag = False,
    broker: Annotated[
        str | None, typer.Option("--broker", help="A RabbitMQ for a request and its response. Default: HUB_BROKER_URL.")
    ] = None,
) -> None:
    """Show delivery, retries, dead letters and recovery in about half a minute. Leaves nothing behind."""
    from hub.demo import main

    raise typer.Exit(main(as_json, broker=broker))


def keygen() -> None:
    """Print a new key for HUB_SECRET_KEYS."""
    from cryptography.fernet import Fernet

    print(Fernet.generate_key().decode())


def rotate_secrets(as_json: JsonFlag = False) -> None:
    """Encrypt every stored secret with the first key of HUB_SECRET_KEYS."""
    with open_hub() as hub:
        count, unreadable = hub.registry.services.rotate_secrets()
        sources, sources_unreadable = hub.registry.sources.rotate_secrets()
    unreadable += [f"source {name}" for name in sources_unreadable]
    if as_json:
        print_json({"services": count, "sources": sources, "unreadable": unreadable})
    elif not unreadable:
        print(f"{count} service(s) and {sources} source(s) have secrets, all encrypted with the newest key")
    else:
        print(f"the secrets of {count} service(s) and {sources} source(s) are encrypted with the newest key")
    if unreadable:
        err.print(f"no key decrypts the secrets of {', '.join(unreadable)}; keep the older keys", markup=False)
        raise typer.Exit(1)


@contextmanager
def _process() -> Iterator[Settings]:
    """Settings and logging of a long-running process; with JSON logs, also the reason why it does not start."""
    import structlog

    from hub.errors import HubError
    from hub.programs.log_setup import configure_logging

    settings = get_settings()
    configure_logging(settings)
    try:
        yield settings
    except HubError as e:
        if settings.log_format != "json":
            raise
        structlog.get_logger("hub.cli.programs").error("not started", error=str(e))
        raise typer.Exit(1) from None


def _say(settings: Settings) -> Callable[[str], None]:
    """Print for people; with JSON logs, log."""
    import structlog

    if settings.log_format == "json":
        return structlog.get_logger("hub.cli.programs").info  # type: ignore[no-any-return]
    return partial(print, flush=True)
