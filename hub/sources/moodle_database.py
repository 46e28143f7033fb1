"""Connection to a Moodle database: MySQL and MariaDB by PyMySQL, PostgreSQL by psycopg.

The only module that speaks to a database that is not the hub's. It reads in autocommit: every statement sees what is
committed when it begins, and holds nothing. Every statement has a time-out on the server and on the connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg

from hub.config.sources import MYSQL, option, without_password
from hub.errors import ConfigError, HubError, SourceError
from hub.models import Source
from hub.settings import Settings
from hub.transports import egress, tls
from hub.transports.base import Deadline

_CONNECT = 10.0  # seconds
_GRACE = 5.0  # seconds that the connection waits longer than the server may take
_EXTRA = "MySQL and MariaDB need the extra: pip install 'integration-hub[moodle]'"
_DENIED = (1044, 1045, 1142, 1143, 1370, 1698)
_NO_TABLE = (1146, 1054, 1049)

Values = tuple[Any, ...]


class _Driver(Protocol):
    """A connection of one kind. Errors are the driver's own."""

    server: str

    def query(self, sql: str, params: Sequence[Any]) -> list[Values]: ...

    def close(self) -> None: ...


class MoodleDatabase:
    """One connection, opened when it is needed and again after an error. For one thread at a time."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self._source = source
        self._settings = settings
        self._driver: _Driver | None = None

    def query(self, sql: str, params: Sequence[Any] = ()) -> list[Values]:
        """All rows of one SELECT; `%s` stands for a parameter.

        Raises:
            SourceError: the database does not respond in time, or refuses; without secrets.
            ConfigError: the definition cannot be used on this machine.
        """
        try:
            if self._driver is None:
                self._driver = self._connect()
            return self._driver.query(sql, params)
        except BaseException as e:
            self.close()
            if isinstance(e, ConfigError) or not isinstance(e, Exception):
                raise
            raise SourceError(without_password(_reason(e), self._source)) from None

    @property
    def server(self) -> str:
        """The server's name and version, once connected."""
        return self._driver.server if self._driver else ""

    def close(self) -> None:
        """Close the connection; the next query opens another one. Raises nothing."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with suppress(Exception):  # it is broken already
                driver.close()

    def _connect(self) -> _Driver:
        if self._source.secrets_unreadable:
            raise SourceError("no key in HUB_SECRET_KEYS opens its password")
        kind = _MySql if urlsplit(self._source.url).scheme in MYSQL else _PostgreSql
        return kind(self._source, self._settings)


class _MySql:
    def __init__(self, source: Source, settings: Settings) -> None:
        try:
            import pymysql
        except ImportError:
            raise ConfigError(_EXTRA) from None
        url = urlsplit(source.url)
        timeout = float(option(source, "query_timeout"))
        connection = pymysql.connect(
            user=unquote(url.username or ""),
            password=source.secrets.get("password", ""),
            host=url.hostname or "localhost",
            port=url.port or 3306,
            database=unquote(url.path.strip("/")),
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=int(_CONNECT),
            read_timeout=timeout + _GRACE,
            write_timeout=timeout + _GRACE,
            ssl=_context(source, settings),
            program_name="integration-hub",
            defer_connect=True,
            unix_socket=_socket(source, "unix_socket", settings),
        )
        if connection.unix_socket:
            connection.connect()
        else:
            deadline = Deadline(_CONNECT)
            connection.connect(egress.connect(url.hostname or "", url.port or 3306, settings, deadline))
        self._connection = connection
        self.server = str(connection.get_server_info())  # type: ignore[no-untyped-call]
        maria = "mariadb" in self.server.lower()
        limit = f"max_statement_time = {timeout:g}" if maria else f"max_execution_time = {int(timeout * 1000)}"
        for statement in (f"SET SESSION {limit}", "SET SESSION TRANSACTION READ ONLY"):
            self.query(statement, ())
        self.server = f"{'MariaDB' if maria else 'MySQL'} {self.server}"

    def query(self, sql: str, params: Sequence[Any]) -> list[Values]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, list(params) or None)
            return list(cursor.fetchall())

    def close(self) -> None:
        self._connection.close()


class _PostgreSql:
    def __init__(self, source: Source, settings: Settings) -> None:
        url = urlsplit(source.url)
        timeout = float(option(source, "query_timeout"))
        folder = _socket(source, "host", settings)
        port = url.port or 5432
        where: dict[str, Any] = {"host": folder, "port": port}
        if folder is None:
            host = url.hostname or ""
            addresses = egress.resolve(host, port, settings, _CONNECT)
            where = {"host": ",".join([host] * len(addresses)), "hostaddr": ",".join(addresses), "port": port}
        self._connection = psycopg.connect(
            **where,
            user=unquote(url.username or ""),
            password=source.secrets.get("password") or None,
            dbname=unquote(url.path.strip("/")),
            autocommit=True,
            prepare_threshold=None,  # poolers know no prepared statements
            connect_timeout=int(_CONNECT),
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=int((timeout + _GRACE) * 1000),
            application_name="integration-hub",
            client_encoding="UTF8",
            **_ssl(source, settings),
        )
        self._connection.execute(
            "SELECT set_config('statement_timeout', %s, false),"
            " set_config('default_transaction_read_only', 'on', false)",
            [f"{int(timeout * 1000)}ms"],
        )
        version = self._connection.info.server_version
        self.server = f"PostgreSQL {version // 10000}.{version % 10000}"

    def query(self, sql: str, params: Sequence[Any]) -> list[Values]:
        return self._connection.execute(sql.encode(), list(params)).fetchall()

    def close(self) -> None:
        self._connection.close()


def _socket(source: Source, parameter: str, settings: Settings) -> str | None:
    """The Unix socket that a URL names; refused where private addresses are: it leads to this machine."""
    given = parse_qs(urlsplit(source.url).query).get(parameter)
    if given and settings.egress_private == "deny":
        raise ConfigError("a Unix socket is not allowed, because HUB_EGRESS_PRIVATE=deny", field="url")
    return given[0] if given else None


def _context(source: Source, settings: Settings) -> ssl.SSLContext | None:
    mode = option(source, "tls")
    if mode == "off":
        return None
    if mode == "verify":
        return tls.context(settings.tls_folder, option(source, "ca_file"), alpn=())
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE  # what `tls: require` means
    return unchecked


def _ssl(source: Source, settings: Settings) -> dict[str, Any]:
    mode = option(source, "tls")
    if mode != "verify":
        return {"sslmode": "require" if mode == "require" else "disable", "gssencmode": "disable"}
    name = option(source, "ca_file")
    tls.context(settings.tls_folder, name, alpn=())  # says what is wrong with the file, or that it may not be used
    root = str(settings.tls_folder.absolute() / name) if name else "system"
    return {"sslmode": "verify-full", "sslrootcert": root, "gssencmode": "disable"}


def _reason(e: Exception) -> str:
    """What a driver's error says, and what to do about the usual ones."""
    if isinstance(e, HubError):
        return str(e)
    code = e.args[0] if e.args and isinstance(e.args[0], int) else None
    text = str(e.args[1] if code is not None and len(e.args) > 1 else e).strip().split("\n")[0] or type(e).__name__
    if code in _DENIED or isinstance(e, psycopg.errors.InsufficientPrivilege):
        return f"{text}; the user needs SELECT on Moodle's tables"
    if code in _NO_TABLE or isinstance(e, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return f"{text}; check the database's name and the table prefix"
    if code in (1969, 3024) or isinstance(e, psycopg.errors.QueryCanceled):
        return f"the query took too long and was ended: {text}"
    return text
