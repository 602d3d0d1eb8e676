"""`python -m sac_kernel.paper`, an older spelling of `python -m sac_kernel paper`."""

import sys

from sac_kernel.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["paper", *sys.argv[1:]]))
