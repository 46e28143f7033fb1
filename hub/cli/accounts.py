"""`hub user` and `hub token`: console users and API tokens."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from hub.cli.common import JsonFlag, Yes, confirm, open_hub, usage
from hub.cli.fields import secret
from hub.cli.output import print_json, show_rows

users = typer.Typer(no_args_is_help=True, help="Users of the console.", rich_markup_mode=None)
tokens = typer.Typer(no_args_is_help=True, help="API tokens.", rich_markup_mode=None)
Name = Annotated[str, typer.Argument()]
Password = Annotated[str | None, typer.Option("--password", help="@FILE or env:NAME; without it, a prompt or stdin.")]
_ROLES = ("view", "manage")
_SCOPES = ("ingest", "view", "manage")


def _password(given: str | None) -> str:
    if given is not None:
        return secret(given)
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


@users.command("add")
def add_user(
    name: Name,
    role: Annotated[str, typer.Option("--role", help="view or manage.")] = "view",
    password: Password = None,
) -> None:
    """Add a user. The password is prompted for, or read from stdin."""
    from hub.web.passwords import hash_password

    if role not in _ROLES:
        raise usage("--role must be view or manage")
    with open_hub() as hub:
        hub.accounts.users.add(name, hash_password(_password(password), about=[name]), role)  # type: ignore[arg-type]
    print(f"user {name} added ({role})")


@users.command("list")
def list_users(as_json: JsonFlag = False) -> None:
    """List users."""
    with open_hub() as hub:
        rows: list[dict[str, Any]] = [
            {"name": u.name, "role": u.role, "enabled": u.enabled, "created_at": u.created_at}
            for u in hub.accounts.users.list()
        ]
    show_rows(rows, ("name", "role", "enabled", "created_at"), as_json=as_json, empty="no users; `hub user add NAME`")


@users.command("password")
def set_password(name: Name, password: Password = None) -> None:
    """Set a new password. Ends the user's sessions."""
    from hub.web.passwords import hash_password

    with open_hub() as hub:
        hub.accounts.users.get(name)
        hub.accounts.users.set_password(name, hash_password(_password(password), about=[name]))
    print(f"password of {name} set")


@users.command("role")
def set_role(name: Name, role: Annotated[str, typer.Argument(help="view or manage.")]) -> None:
    """Change the role of a user."""
    if role not in _ROLES:
        raise usage("ROLE must be view or manage")
    with open_hub() as hub:
        hub.accounts.users.set_role(name, role)  # type: ignore[arg-type]
    print(f"role of {name} set to {role}")


@users.command("enable")
def enable_user(name: Name) -> None:
    """Allow a user to log in again."""
    with open_hub() as hub:
        hub.accounts.users.enable(name, True)
    print(f"{name} enabled")


@users.command("disable")
def disable_user(name: Name) -> None:
    """Refuse log-ins of a user. Ends the user's sessions."""
    with open_hub() as hub:
        hub.accounts.users.enable(name, False)
    print(f"{name} disabled")


@users.command("delete")
def delete_user(name: Name, yes: Yes = False) -> None:
    """Delete a user."""
    with open_hub() as hub:
        hub.accounts.users.get(name)
        confirm(f"Delete user {name!r}?", yes=yes)
        hub.accounts.users.delete(name)
    print(f"{name} deleted")


@users.command("sessions")
def list_sessions(
    name: Annotated[str | None, typer.Argument(help="Only sessions of this user.")] = None, as_json: JsonFlag = False
) -> None:
    """List sessions of the console."""
    with open_hub() as hub:
        rows = [asdict(session) for session in hub.accounts.sessions.list(name)]
    columns = ("id", "user", "origin", "created_at", "expires_at")
    show_rows(rows, columns, as_json=as_json, empty="no sessions", filters=(name,))


@users.command("logout")
def revoke_session(number: Annotated[int, typer.Argument(metavar="SESSION", help="Id of a session.")]) -> None:
    """End a session."""
    with open_hub() as hub:
        hub.accounts.sessions.revoke(number)
    print(f"session {number} ended")


@users.command("link")
def link() -> None:
    """Print a link that creates an administrator. It works once, for an hour; earlier links become invalid."""
    with open_hub() as hub:
        base = hub.settings.public_url or f"http://{hub.settings.listen}"
        print(f"{base.rstrip('/')}/login/link/{hub.accounts.links.add()}")


@tokens.command("add")
def add_token(
    name: Name,
    scope: Annotated[str, typer.Option("--scope", help="ingest, view or manage.")] = "ingest",
    expires: Annotated[
        int | None, typer.Option("--expires", min=1, max=36500, help="Days until it expires. Default: never.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Create a token. It is shown only once."""
    if scope not in _SCOPES:
        raise usage("--scope must be ingest, view or manage")
    with open_hub() as hub:
        until = hub.clock.now() + timedelta(days=expires) if expires else None
        token, value = hub.accounts.tokens.add(name, scope, expires_at=until)  # type: ignore[arg-type]
    if as_json:
        print_json({"id": token.id, "name": name, "scope": scope, "expires_at": until, "token": value})
    else:
        print(value)


@tokens.command("list")
def list_tokens(as_json: JsonFlag = False) -> None:
    """List tokens, without their values."""
    with open_hub() as hub:
        rows = [
            {
                "id": t.id,
                "name": t.name,
                "scope": t.scope,
                "expires_at": t.expires_at,
                "revoked_at": t.revoked_at,
                "last_used_at": t.last_used_at,
                "created_at": t.created_at,
            }
            for t in hub.accounts.tokens.list()
        ]
    columns = ("id", "name", "scope", "created_at", "expires_at", "last_used_at", "revoked_at")
    show_rows(rows, columns, as_json=as_json, empty="no tokens; `hub token add NAME`")


@tokens.command("revoke")
def revoke_token(name: Name) -> None:
    """Revoke a token. Takes effect at once."""
    with open_hub() as hub:
        hub.accounts.tokens.revoke(name)
    print(f"token {name} revoked")
