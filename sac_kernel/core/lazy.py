"""Public names of a package, loaded on first use, so that importing a package loads no framework."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def lazy_exports(
    package: str, names: dict[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package (PEP 562).

    Parameters
    ----------
    package : `__name__` of the package
    names : module of the package -> its public names, separated by blanks
    """
    owners = {name: module for module, listed in names.items() for name in listed.split()}

    def load(name: str) -> Any:  # noqa: ANN401
        if name not in owners:
            msg = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(msg)
        return getattr(importlib.import_module(f"{package}.{owners[name]}"), name)

    def listed() -> list[str]:
        return sorted(owners)

    return load, listed, sorted(owners)
