"""`python -m sac_kernel.walk_forward`, an older spelling of `python -m sac_kernel walk-forward`.

Its `--seeds N` means seeds 0 to N - 1.
"""

import sys

from sac_kernel.cli.main import main

if __name__ == "__main__":
    words = [
        f"--seed-count{w.removeprefix('--seeds')}" if w.startswith("--seeds") else w for w in sys.argv[1:]
    ]
    raise SystemExit(main(["walk-forward", *words]))
