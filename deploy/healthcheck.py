"""Health check of a container. It uses neither database nor broker: a restart does not help when those are down.

    healthcheck.py http PORT PATH       the server responds (401 counts: it requires a token)
    healthcheck.py processes WORD N     a process with WORD in its command line has at least N living children

Exit 0 healthy, 1 not. Standard library only.
"""

from __future__ import annotations

import http.client
import sys
from pathlib import Path

TIMEOUT = 4.0
INITS = ("docker-init", "tini", "catatonit")  # their command line contains the command that they started


def responds(port: int, path: str) -> bool:
    """Return whether an HTTP server on loopback responds to `path` with a status below 400, or 401."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return status < 400 or status == 401


def processes(proc: Path = Path("/proc")) -> dict[int, tuple[int, str, str]]:
    """Return all processes: pid -> (parent, state, command line)."""
    found = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # the process has ended
            continue
        found[int(folder.name)] = (int(parent), state, command)
    return found


def has_children(word: str, least: int, proc: Path = Path("/proc")) -> bool:
    """Return whether a process with `word` in its command line has at least `least` running children."""
    everything = {
        pid: entry
        for pid, entry in processes(proc).items()
        if entry[1] not in "ZTX" and Path(__file__).name not in entry[2]
    }
    named = [
        pid
        for pid, (_, _, command) in everything.items()
        if word in command and Path(command.split(" ")[0]).name not in INITS
    ]
    return any(sum(parent == pid for parent, _, _ in everything.values()) >= least for pid in named)


def main(words: list[str]) -> int:
    match words:
        case ["http", port, path]:
            return 0 if responds(int(port), path) else 1
        case ["processes", word, least]:
            return 0 if has_children(word, int(least)) else 1
    print(__doc__, file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
