"""The folder `HUB_HOME`: its private files, and the key file of a hub without `HUB_SECRET_KEYS`."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet

from hub.errors import ConfigError


def load_or_create_key(home: Path) -> str:
    """Return the Fernet key in `HOME/secret.key`; create it (mode 0600) if it is missing.

    Concurrent processes get the same key, and a kill leaves no partial key.

    Raises:
        ConfigError: the file is not a key, or other users can read it.
    """
    path = make_folder(home) / "secret.key"
    if not path.exists():
        with tempfile.NamedTemporaryFile(dir=home, prefix=".key.") as f:
            f.write(Fernet.generate_key())
            f.flush()
            os.fsync(f.fileno())
            give(Path(f.name), home.stat().st_uid)
            try:
                os.link(f.name, path)
            except FileExistsError:
                pass  # another process was faster: use its key
        sync(home)
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{path} is readable by other users; chmod 600 it, or delete it and enter all secrets again"
            )
        key = path.read_text("ascii").strip()
        Fernet(key)
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}", field="HUB_HOME") from None
    except ValueError:
        raise ConfigError(f"{path} is not a Fernet key; restore the right one, or set HUB_SECRET_KEYS") from None
    return key


def make_folder(path: Path) -> Path:
    """Create a folder with mode 0700 if it is missing; raises `ConfigError`."""
    try:
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            give(path, path.parent.stat().st_uid if path.name == "postgres" else os.geteuid())
    except OSError as e:
        what = "is not a folder" if e.errno in (errno.EEXIST, errno.ENOTDIR) else f"cannot be created: {e.strerror}"
        raise ConfigError(f"{path} {what}", field="HUB_HOME") from None
    return path


def give(path: Path, uid: int) -> None:
    """As root, make `uid` the owner of a file, so that the user can open it."""
    if os.geteuid() == 0 and uid != 0:
        os.chown(path, uid, -1)


def sync(folder: Path) -> None:
    """Flush a folder's entries to disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path: Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
