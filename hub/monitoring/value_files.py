"""Counters and histograms as numbers in mapped files, one set per process; the exporter adds them up.

The files are those of prometheus-client's multiprocess mode, but no process is known by its pid: it holds
a **slot**, the smallest free number, for as long as it holds the lock on `slot-N`. So a process that
follows a dead one goes on in its files: there are never more files than there were processes at a time,
no count is lost, and containers that share the folder do not mistake each other's pids. Whoever holds no
lock is dead: its `live` gauges are removed.
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
    """This process's numbers. Safe to use from many threads, and after a fork.

    Args:
        folder: shared by the processes of one machine or pod; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pid = 0
        self._slot: IO[bytes] | None = None
        self._number = 0
        self._files: dict[str, MmapedDict] = {}

    def add(self, kind: str, changes: Iterable[tuple[str, float]]) -> None:
        """Add to numbers, all at once; `kind` is counter or histogram, a key comes from `key()`."""
        with self._lock:
            file = self._file(kind)
            for name, amount in changes:
                value, _ = file.read_value(name)
                file.write_value(name, value + amount, 0.0)

    def set(self, name: str, value: float) -> None:
        """Set a gauge that ends with the process and is summed over the living ones."""
        with self._lock:
            self._file(f"{_LIVE}sum").write_value(name, value, 0.0)

    def close(self) -> None:
        """Let the slot go; the counts stay, the gauges do not."""
        with self._lock:
            self._let_go()

    def _file(self, kind: str) -> MmapedDict:
        if self._pid != os.getpid():
            self._let_go()  # after a fork: these are the parent's
            self._take_slot()
        file = self._files.get(kind)
        if file is None:
            path = self._folder / f"{kind}_{self._number}.db"
            if path.exists() and not _whole(path):
                path.unlink()  # cut short by a power failure: nothing in it can be trusted
            file = self._files[kind] = MmapedDict(str(path))
        return file

    def _take_slot(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while (held := _try_lock(self._folder / f"slot-{number}", fcntl.LOCK_EX)) is None:
            number += 1
        self._slot, self._number, self._pid = held, number, os.getpid()
        _forget_gauges(self._folder, number)

    def _let_go(self) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
        if self._slot is not None:
            self._slot.close()
            self._slot = None
        self._pid = 0


def key(metric: str, sample: str, labels: Mapping[str, str], text: str) -> str:
    """The name of a number: metric family, sample, labels and help text."""
    return str(mmap_key(metric, sample, list(labels), list(labels.values()), text))


def read(folder: Path) -> dict[str, dict[tuple[str, Labels], float]]:
    """The numbers of all processes, added up: metric -> (sample, sorted labels) -> value.

    Gauges of dead processes are removed on the way. A folder that does not exist holds nothing yet.

    Raises:
        OSError, RuntimeError: a file cannot be read.
    """
    for path in folder.glob(f"{_LIVE}*.db"):
        number = int(path.stem.rpartition("_")[2])
        if (free := _try_lock(folder / f"slot-{number}", fcntl.LOCK_SH)) is not None:
            with free:
                _forget_gauges(folder, number)
    totals: dict[str, float] = defaultdict(float)
    for path in folder.glob("*_*.db"):
        try:
            for name, value, _, _ in MmapedDict.read_all_values_from_file(str(path)):
                totals[name] += value
        except FileNotFoundError:
            continue  # a gauge whose process died a moment ago
    metrics: dict[str, dict[tuple[str, Labels], float]] = defaultdict(dict)
    for name, value in totals.items():
        metric, sample = _parsed(name)
        metrics[metric][sample] = metrics[metric].get(sample, 0.0) + value
    return metrics


def empty(folder: Path) -> bool:
    """Forget all numbers, when a deployment starts; False when some process still counts there."""
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
    """The open file when the lock is ours now; None when somebody holds it."""
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


def _forget_gauges(folder: Path, number: int) -> None:
    for path in folder.glob(f"{_LIVE}*_{number}.db"):
        path.unlink(missing_ok=True)


@lru_cache(maxsize=65536)
def _parsed(name: str) -> tuple[str, tuple[str, Labels]]:
    metric, sample, labels, _help = json.loads(name)
    return metric, (sample, tuple(sorted(labels.items())))
