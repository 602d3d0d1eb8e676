"""`python -m sac_kernel.retrain`, the older spelling of a command."""

from sac_kernel.live.retrain import main

if __name__ == "__main__":
    raise SystemExit(main())
