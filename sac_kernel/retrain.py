"""`python -m sac_kernel.retrain`, an older spelling of `python -m sac_kernel retrain`."""

import sys

from sac_kernel.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["retrain", *sys.argv[1:]]))
