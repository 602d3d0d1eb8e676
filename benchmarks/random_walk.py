"""`python -m benchmarks.random_walk`: the random-walk audit in full; exit status 1 if anybody earns."""

from __future__ import annotations

import sys
import time

from sac_kernel.backtest.random_walk import FULL_SEEDS, audit_random_walk


def main() -> int:
    report = audit_random_walk(FULL_SEEDS)
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}: {report.summary()}")
    failures = report.failures()
    print("\n".join(failures) or "nobody earns")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
