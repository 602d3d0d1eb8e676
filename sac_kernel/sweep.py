"""`python -m sac_kernel.sweep`, an older spelling of `python -m sac_kernel sweep`."""

import sys

from sac_kernel.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["sweep", *sys.argv[1:]]))
