"""Value files: counters and histograms in memory-mapped files, one set per process, which the exporter sums.

The format is that of prometheus-client's multiprocess mode. A process is identified by a **slot**, not by its pid: the
smallest number N for which it gets the lock on `slot-N`, held until it ends. A new process continues the files of an
ended one, so the number of files is bounded by the number of concurrent processes, no count is lost, and containers
with equal pids can share the folder. A slot without a lock belongs to no process: its `live` gauges are removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import IO

from prometheus_client.mmap_dict import MmapedDict, mmap_key

Labels = tuple[tuple[str, str], ...]
_LIVE = "gauge_live"


class ProcessFiles:
    """The value files of this process. Thread-safe and fork-safe.

    Args:
        folder: shared by the processes of one machine or pod; created when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pid = 0
        self._slot: IO[bytes] | None = None
        self._number = 0
        self._files: dict[str, MmapedDict] = {}

    def add(self, kind: str, changes: Iterable[tuple[str, float]]) -> None:
        """Add amounts to values, atomically within this process.

        Args:
            kind: `counter` or `histogram`.
            changes: (key made by `key()`, amount).
        """
        with self._lock:
            file = self._file(kind)
            for name, amount in changes:
                value, _ = file.read_value(name)
                file.write_value(name, value + amount, 0.0)

    def set(self, name: str, value: float) -> None:
        """Set a gauge that is summed over running processes and removed when this one ends."""
        with self._lock:
            self._file(f"{_LIVE}sum").write_value(name, value, 0.0)

    def close(self) -> None:
        """Release the slot. Counts stay, gauges are removed."""
        with self._lock:
            self._release()

    def _file(self, kind: str) -> MmapedDict:
        if self._pid != os.getpid():
            self._release()  # after a fork, these files are the parent's
            self._take_slot()
        file = self._files.get(kind)
        if file is None:
            path = self._folder / f"{kind}_{self._number}.db"
            if path.exists() and not _whole(path):
                path.unlink()  # truncated, for example by a power failure
            file = self._files[kind] = MmapedDict(str(path))
        return file

    def _take_slot(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while (held := _try_lock(self._folder / f"slot-{number}", fcntl.LOCK_EX)) is None:
            number += 1
        self._slot, self._number, self._pid = held, number, os.getpid()
        _remove_gauges(self._folder, number)

    def _release(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
        if self._slot is not None:
            self._slot.close()
            self._slot = None
        self._pid = 0


def key(metric: str, sample: str, labels: Mapping[str, str], text: str) -> str:
    """Return the key of a value: metric family, sample, labels and help text as JSON."""
    return str(mmap_key(metric, sample, list(labels), list(labels.values()), text))


def read(folder: Path) -> dict[str, dict[tuple[str, Labels], float]]:
    """Sum the values of all processes: metric -> (sample, sorted labels) -> value.

    Removes gauges of ended processes. A missing folder has no values.

    Raises:
        OSError, RuntimeError: a file cannot be read.
    """
    for path in folder.glob(f"{_LIVE}*.db"):
        number = int(path.stem.rpartition("_")[2])
        if (free := _try_lock(folder / f"slot-{number}", fcntl.LOCK_SH)) is not None:
            with free:
                _remove_gauges(folder, number)
    totals: dict[str, float] = defaultdict(float)
    for path in folder.glob("*_*.db"):
        try:
            for name, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                totals[name] += value
        except FileNotFoundError:
            continue  # a gauge of a process that just ended
    metrics: dict[str, dict[tuple[str, Labels], float]] = defaultdict(dict)
    for name, value in totals.items():
        metric, sample = _parsed(name)
        metrics[metric][sample] = metrics[metric].get(sample, 0.0) + value
    return metrics


def empty(folder: Path) -> bool:
    """Delete all values. Returns False, and deletes nothing, when a process still uses the folder."""
    held = [_try_lock(path, fcntl.LOCK_EX) for path in folder.glob("slot-*")]
    try:
        if None in held:
            return False
        for path in folder.glob("*_*.db"):
            path.unlink(missing_ok=True)
        return True
    finally:
        for lock in held:
            if lock is not None:
                lock.close()


def _try_lock(path: Path, how: int) -> IO[bytes] | None:
    """Return the locked file, or None when another process holds the lock."""
    file = path.open("ab")
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _whole(path: Path) -> bool:
    try:
        for name, _, _, _ in MmapedDict.read_all_values_from_file(str(path)):
            json.loads(name)
    except Exception:
        return False
    return True


def _remove_gauges(folder: Path, number: int) -> None:
    for path in folder.glob(f"{_LIVE}*_{number}.db"):
        path.unlink(missing_ok=True)


@lru_cache(maxsize=65536)
def _parsed(name: str) -> tuple[str, tuple[str, Labels]]:
    metric, sample, labels, _help = json.loads(name)
    return metric, (sample, tuple(sorted(labels.items())))
