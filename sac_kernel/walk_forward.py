"""`python -m sac_kernel.walk_forward`, the older spelling of a command."""

from sac_kernel.experiment.walk_forward import main

if __name__ == "__main__":
    raise SystemExit(main())
