"""An hour of mixed load: PYTHONPATH=tests python -m serve.soak --minutes 60 --out soak.json

`--share 0.3` keeps server and clients together below that share of one core. Exit status 0: nothing was wrong.
"""

import argparse
import sys
from pathlib import Path

from serve.soak.run import Plan, soak


def main() -> int:
    """Run, and say in a line what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="Where the results go, as JSON.")
    given = parser.parse_args()
    plan = Plan(given.minutes, given.backend, given.clients, given.share, given.seed)
    found = soak(plan, given.out)
    print(f"{'passed' if found['passed'] else 'FAILED'}: {found['counts']}, memory {found['memory']}")
    for fault in found["faults"]:
        print(fault)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
