"""`python -m sac_kernel.sweep`, the older spelling of a command."""

from sac_kernel.experiment.sweep import main

if __name__ == "__main__":
    raise SystemExit(main())
