"""`python -m sac_kernel.export`, an older spelling of `python -m sac_kernel export`."""

import sys

from sac_kernel.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["export", *sys.argv[1:]]))
