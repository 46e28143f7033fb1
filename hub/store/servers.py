"""The PostgreSQL servers of a URL with several hosts: which of them is the primary, by its timeline.

After a fail-over the old primary may still accept writes: it was only cut off from the standby that was promoted. It
is recognised by its timeline, which a promotion raises. Connections to it are refused until it has become a standby.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

PROBE_TIMEOUT = 2  # seconds; libpq's minimum
_STATE = """
SELECT (SELECT system_identifier FROM pg_control_system()), CASE WHEN pg_is_in_recovery() THEN 0
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END
"""

Server = tuple[str, str]  # host and port, as the URL has them


@dataclass(frozen=True, slots=True)
class State:
    """What a server says about itself. `timeline` is 0 while it is a standby."""

    system: int
    timeline: int


class Servers:
    """The servers of one URL, in the order in which connections try them.

    Args:
        url: `postgresql://` URL or libpq string.
        options: connection parameters that the URL does not set.
    """

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        parsed = conninfo_to_dict(url)
        hosts = str(parsed.get("host") or "").split(",")
        ports = str(parsed.get("port") or "5432").split(",")
        self._url = url
        self._options = options | {"connect_timeout": PROBE_TIMEOUT, "target_session_attrs": "any"}
        self._all: list[Server] = list(zip(hosts, ports * (len(hosts) if len(ports) == 1 else 1), strict=False))
        self.several = len(self._all) > 1 and not parsed.get("hostaddr")
        self._order = list(self._all)
        self._timeline: dict[int, int] = {}  # system identifier -> the highest timeline of a primary
        self._system: int | None = None
        self.stale: frozenset[Server] = frozenset()

    def preference(self) -> dict[str, str]:
        """The connection parameters `host` and `port`; empty for a URL with one host."""
        usable = [server for server in self._order if server not in self.stale]
        if not self.several or not usable:
            return {}
        return {"host": ",".join(host for host, _ in usable), "port": ",".join(port for _, port in usable)}

    def try_last(self, server: Server) -> None:
        """Try a server that does not respond after the others."""
        if server in self._order:
            self._order = [s for s in self._order if s != server] + [server]

    def responds(self, server: Server) -> bool:
        """Whether a server responds to a new connection in time. A refusal (too many connections) is a response."""
        host, port = server
        try:
            psycopg.connect(self._url, **self._options | {"host": host, "port": port}).close()
        except psycopg.errors.ConnectionTimeout:
            return False
        except psycopg.Error:
            pass
        return True

    def survey(self) -> bool:
        """Read the state of all servers; returns whether `stale` has changed."""
        with ThreadPoolExecutor(len(self._all), "hub-servers") as threads:
            states = dict(zip(self._all, threads.map(self._state, self._all), strict=True))
        return self.judge(states)

    def judge(self, states: dict[Server, State | None]) -> bool:
        """Find stale primaries; None: the server did not respond. Returns whether `stale` has changed."""
        primaries = {server: state for server, state in states.items() if state is not None and state.timeline}
        if self._system is None and primaries:
            self._system = max(primaries.values(), key=lambda state: state.timeline).system
        highest = self._timeline.get(self._system or 0, 0)
        own = [state.timeline for state in primaries.values() if state.system == self._system]
        if self._system is not None:
            highest = self._timeline[self._system] = max([highest, *own])
        silent = {server for server, state in states.items() if state is None}
        stale = (self.stale & silent) | {
            server for server, state in primaries.items() if state.system != self._system or state.timeline < highest
        }
        changed = stale != self.stale
        self.stale = frozenset(stale)
        return changed

    def _state(self, server: Server) -> State | None:
        host, port = server
        try:
            with psycopg.connect(self._url, **self._options | {"host": host, "port": port}) as conn:
                row = conn.execute(_STATE).fetchone()
        except psycopg.Error:
            return None
        return State(int(row[0]), int(row[1])) if row else None
