"""The trainer under the name that the manual guide's users import, and as a command."""

from sac_kernel.experiment.trainer import KaggleTrainer, main

__all__ = ["KaggleTrainer", "main"]

if __name__ == "__main__":
    raise SystemExit(main())
