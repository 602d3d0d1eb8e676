"""`python -m sac_kernel COMMAND`, the same as the console script `sac-kernel`."""

from sac_kernel.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
