"""CPU time per row of a Moodle source, beside plain intake of the same events: `python -m tests.bench.source [ROWS]`.

Each round reads the same rows from MariaDB and from PostgreSQL, and passes the same events to intake, by turns. The CPU
time is that of this process (one thread); that of MariaDB is shown as well: it is what a site pays.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from hub.app.lifecycle import Hub, build
from hub.app.sources import make_poller
from hub.models import Event
from hub.settings import Settings
from hub.store.source_positions import SourcePositions
from tests.support.databases import PostgresServer, Template
from tests.support.hubs import add_rule, add_service, add_source
from tests.support.mariadb import MariaDbServer
from tests.support.moodle_site import MoodleSite, log_row, make_site

_BATCH = 1000
_ROUNDS = 3


def main(count: int) -> None:
    """Print one line per way."""
    rows = [log_row() for _ in range(count)]
    events = [Event(row["eventname"], row, f"bench:{n}") for n, row in enumerate(rows)]
    found: dict[str, list[tuple[float, float, float]]] = {}
    with _servers() as (template, mariadb):
        sites = {
            "source on MariaDB": make_site("mariadb", mariadb, template),
            "source on PostgreSQL": make_site("postgresql", None, template),
        }
        for site in sites.values():
            conn = site.transaction()
            site.insert(rows, conn)
            conn.commit()
            conn.close()
        for _ in range(_ROUNDS):
            for name, site in sites.items():
                found.setdefault(name, []).append(_measured(template, mariadb, partial(_read, site=site)))
            found.setdefault("source on MariaDB, no rule wants it", []).append(
                _measured(template, mariadb, lambda hub: _read(hub, sites["source on MariaDB"]), event="none")
            )
            found.setdefault("plain intake", []).append(_measured(template, mariadb, lambda hub: _plain(hub, events)))
        for site in sites.values():
            site.close()
    print(f"{count} rows, batches of {_BATCH}, median of {_ROUNDS} rounds, microseconds per row")
    for name, runs in found.items():
        cpu, wall, server = (median(values) / count * 1e6 for values in zip(*runs, strict=True))
        print(f"{name:38} CPU {cpu:6.0f}   wall {wall:6.0f}   MariaDB CPU {server:5.1f}")


@contextmanager
def _servers() -> Iterator[tuple[Template, MariaDbServer]]:
    postgres, mariadb = PostgresServer(), MariaDbServer()
    try:
        postgres.start()
        mariadb.start()
        yield Template(postgres.url), mariadb
    finally:
        mariadb.close()
        postgres.close()


def _measured(
    template: Template, mariadb: MariaDbServer, act: Callable[[Hub], None], event: str = "*"
) -> tuple[float, float, float]:
    """(CPU seconds of this process, seconds, CPU seconds of MariaDB)."""
    name, url = template.clone()
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(
            database_url=url, home=Path(home), secret_keys="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
        )
        with build(settings, role="cli") as hub:
            add_service(hub, "http://127.0.0.1:9")
            add_rule(hub, event=event)
            hub.configuration.listen()
            server, cpu, begun = _cpu_of(mariadb), time.process_time(), time.perf_counter()
            act(hub)
            took = time.process_time() - cpu, time.perf_counter() - begun, _cpu_of(mariadb) - server
    template.drop(name)
    return took


def _read(hub: Hub, site: MoodleSite) -> None:
    source = add_source(hub, site.url, start=0, batch=_BATCH)
    poller, close = make_poller(hub, source, SourcePositions(hub.db, source.id, "bench"))
    while poller.look() == "more":
        pass
    close()


def _plain(hub: Hub, events: list[Event]) -> None:
    for begin in range(0, len(events), _BATCH):
        hub.intake.handle_events(events[begin : begin + _BATCH])


def _cpu_of(server: MariaDbServer) -> float:
    """CPU seconds that the server's process has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
