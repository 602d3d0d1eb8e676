"""The trainer under the name that the manual guide's users import, and an older spelling of `sac-kernel train`."""

import sys
from collections.abc import Sequence

from sac_kernel.experiment.trainer import KaggleTrainer

__all__ = ["KaggleTrainer", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `sac-kernel train`; return the exit status."""
    from sac_kernel.cli.main import main as command_line  # stays at home; the notebook trains without it

    return command_line(["train", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    raise SystemExit(main())
