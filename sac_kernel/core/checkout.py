"""The clone of the project around the current folder, which builds and rehearsals need."""

from __future__ import annotations

from pathlib import Path

from sac_kernel.core.errors import InputNotFoundError

CHECKOUT = ("build_kernel.py", "notebooks/train.ipynb", "sac_kernel")
"""Files that only a clone of the project has."""


def find_checkout() -> Path:
    """Return the clone of the project around the current folder; builds and rehearsals need it.

    Raises
    ------
    InputNotFoundError
        If there is none, as with an installed package.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if all((folder / name).exists() for name in CHECKOUT):
            return folder
    msg = (
        f"This command needs a clone of the project, and {here} is not in one. Run it in the folder that holds "
        f"{CHECKOUT[0]}; the installed package has no notebook to build from."
    )
    raise InputNotFoundError(msg)
