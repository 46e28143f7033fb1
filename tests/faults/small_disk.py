"""A PostgreSQL on a disk of its own, a small one that can be filled: a tmpfs in a user namespace, which takes no root.

Everything on that disk is PostgreSQL's, its write-ahead log too. The server is started again when it ends, as a
service manager would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import psycopg
import pytest

from hub.embedded.programs import binaries
from tests.support.waiting import eventually

MISSING = "no user namespaces with a tmpfs here (unshare -Urm, mount): nobody filled the disk under PostgreSQL"
_KEEPER = Path(__file__).parents[1] / "support" / "keeper.py"
_NEW = ["unshare", "-Urm"]
# PostgreSQL refuses root, and the one who mounts is called root in the first namespace.
_SCRIPT = """
set -e
folder=$1 programs=$2 size=$3
mount -t tmpfs -o size=$size,mode=0700 tmpfs "$folder/disk"
nobody="unshare -U --map-user=65534 --map-group=65534"
$nobody "$programs/initdb" -D "$folder/disk/data" -U hub -A trust -E UTF8 --no-locale --wal-segsize=1 -N > /dev/null
echo $$ > "$folder/pid"
while :; do
    $nobody "$programs/postgres" -D "$folder/disk/data" -c listen_addresses= -c unix_socket_directories="$folder" \
        -c shared_buffers=16MB -c min_wal_size=2MB -c max_wal_size=8MB -c wal_level=minimal -c max_wal_senders=0 \
        -c dynamic_shared_memory_type=mmap || true
    sleep 0.3
done
"""


def needed() -> None:
    """Skip the test, loudly, where the kernel allows no such disk."""
    probe = [*_NEW, "sh", "-c", "mount -t tmpfs tmpfs /tmp && unshare -U --map-user=65534 --map-group=65534 true"]
    try:
        possible = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        possible = False
    if not possible:
        pytest.skip(MISSING)


class SmallDisk:
    """Use as a context manager; `url` is the server's."""

    def __init__(self, megabytes: int = 96) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hub-test-disk-"))
        self._megabytes = megabytes
        self.url = f"postgresql://hub@/postgres?host={quote(str(self.folder), safe='')}"

    def __enter__(self) -> Self:
        (self.folder / "disk").mkdir()
        with (self.folder / "log").open("wb") as log:
            self._keeper = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_KEEPER),
                    str(self.folder),
                    *_NEW,
                    "sh",
                    "-c",
                    _SCRIPT,
                    "sh",
                    str(self.folder),
                    str(binaries()),
                    f"{self._megabytes}m",
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            eventually(self.answers, "PostgreSQL's start")
        except BaseException:
            print(self.log()[-3000:])
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is not None:
            print(self.log()[-3000:])
        self.close()

    def close(self) -> None:
        """End it, and remove its disk."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def answers(self) -> bool:
        """Whether the server takes connections."""
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def log(self) -> str:
        """What the server said."""
        return (self.folder / "log").read_text(errors="replace")

    @property
    def _filler(self) -> Path:
        """A file on the disk, as seen from outside of its namespace."""
        pid = int((self.folder / "pid").read_text())
        return Path(f"/proc/{pid}/root{self.folder}/disk/filler")

    def fill(self) -> None:
        """Take every byte that is left."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError as e:
                    assert e.errno == 28, e
        assert os.statvfs(self._filler).f_bavail == 0

    def end_log(self) -> None:
        """Write to the write-ahead log until it needs more of the disk: the server ends in a panic."""
        for _ in range(1000):
            try:
                with psycopg.connect(self.url, connect_timeout=2, autocommit=True) as conn:
                    conn.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 100000))")
            except psycopg.Error:
                if "PANIC" in self.log():
                    return
        raise AssertionError("the server did not end")

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()
