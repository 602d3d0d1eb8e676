"""`python -m sac_kernel.paper`, the older spelling of a command."""

from sac_kernel.live.paper import main

if __name__ == "__main__":
    raise SystemExit(main())
