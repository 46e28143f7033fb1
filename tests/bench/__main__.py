"""`python -m tests.bench [--rows hub,celery] [--quick] [--out bench.json]`; `make bench` is the same."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from tests.bench import provision, report
from tests.bench.row import Numbers, Row, Scale


def main() -> int:
    """0: measured; 1: something needed is missing, or a row failed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", default="", help="names or beginnings of names, comma-separated; none: all")
    parser.add_argument("--quick", action="store_true", help="one run of little each: a look, not a measurement")
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    options = parser.parse_args()
    if not provision.ready():
        return 1
    from tests.bench import accept, backfill, intake, rates, waits
    from tests.bench.rig import Rig

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    known = [*rates.rows(), *accept.rows(), *intake.rows(), *waits.rows(), *backfill.rows()]
    rows = chosen(known, options.rows)
    scale = Scale.small() if options.quick else Scale()
    begun = time.monotonic()
    result = report.document({}, report.about(0.0, quick=options.quick))

    def keep(runs: dict[str, list[Numbers]]) -> None:
        """After every row, so that a run that is cut off leaves what it had."""
        result.update(report.document(runs, report.about(time.monotonic() - begun, quick=options.quick)))
        report.write(options.out, result)

    rig = Rig()
    try:
        failed = measure(rows, rig, scale, keep)
    finally:
        rig.close()
    report.show(result, {row.name: row.what for row in rows})
    print(f"{options.out} written, {result['about']['seconds']} s")
    return 1 if failed else 0


def chosen(known: list[Row], wanted: str) -> list[Row]:
    """The rows that were asked for; a name, or a beginning of several."""
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    found = []
    for word in words:
        exact = [row for row in known if row.name == word]
        some = exact or [row for row in known if row.name.startswith(word)]
        if not some:
            raise SystemExit(f"no row {word!r}; there are {', '.join(row.name for row in known)}")
        found += [row for row in some if row not in found]
    return found or known


def measure(rows: list[Row], rig: object, scale: Scale, keep: Callable[[dict[str, list[Numbers]]], None]) -> bool:
    """Every row, by turns, so that a busy minute of the machine hits all of them; whether one failed.

    Args:
        keep: is told all runs so far after each of them.
    """
    runs: dict[str, list[Numbers]] = {row.name: [] for row in rows}
    failed = False
    for turn in range(max(1 if scale.quick else row.rounds for row in rows)):
        for row in rows:
            if turn >= (1 if scale.quick else row.rounds):
                continue
            begun = time.monotonic()
            try:
                numbers = row.run(rig, scale)  # type: ignore[arg-type]
            except Exception as e:
                failed = True
                print(f"{row.name}: {type(e).__name__}: {e}", file=sys.stderr, flush=True)
                continue
            runs[row.name].append(numbers)
            said = "  ".join(f"{key} {value:,.4g}" for key, value in numbers.items())
            print(f"[{turn + 1}] {row.name:22} {said}  ({time.monotonic() - begun:.0f} s)", flush=True)
            keep(runs)
    return failed


if __name__ == "__main__":
    sys.exit(main())
