"""`python -m sac_kernel.export`, the older spelling of a command."""

from sac_kernel.live.export import main

if __name__ == "__main__":
    raise SystemExit(main())
