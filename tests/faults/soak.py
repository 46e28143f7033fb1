"""The long form: `python -m tests.faults.soak`. Ends with 1 and a history when a promise broke."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.run import BrokenPromise, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="repeat the faults of an earlier run")
    parser.add_argument("--rate", type=float, default=25.0, help="events per second")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="hub-soak-"))
    rounds = max(1, round(args.minutes / 4))
    each = args.minutes * 60 / rounds
    print(f"seed {seed}, {args.minutes:g} minutes, {rounds} rounds, logs in {folder}", flush=True)
    try:
        run(
            folder,
            seed,
            rate=args.rate,
            gentle=each * 0.4,
            harsh=each * 0.6,
            rounds=rounds,
            soak=True,
            say=lambda text: print(text, flush=True),
        )
    except BrokenPromise as e:
        print(e, file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    print("every promise was kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
