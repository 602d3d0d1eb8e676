"""Renamed names: the old one works for one more version, with a warning that gives the new one."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


def renamed_arguments(**new_names: str) -> Callable[[T], T]:
    """Return a decorator of a function or class that also takes keyword arguments by their old names.

    Parameters
    ----------
    new_names : old name = new name

    Examples
    --------
    >>> @renamed_arguments(colour="color")
    ... def paint(color="red"):
    ...     return color
    """

    def decorate(target: Any) -> Any:  # noqa: ANN401
        function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            return function(*args, **current(target.__name__, kwargs, new_names))

        if not isinstance(target, type):
            return call
        target.__init__ = call  # type: ignore[misc]  # the class keeps its identity
        target.__renamed__ = new_names  # type: ignore[attr-defined]
        return target

    return decorate


def removed_fields(*names: str) -> Callable[[T], T]:
    """Return a decorator of a config class whose saved files may hold fields that it does not have any more."""

    def decorate(target: Any) -> Any:  # noqa: ANN401
        target.__removed__ = names
        return target

    return decorate


def without_removed(target: object, where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without the removed fields of a class; each gives a FutureWarning."""
    removed = [name for name in getattr(target, "__removed__", ()) if name in values]
    if removed:
        text = f"{where}: {', '.join(removed)} has no effect and is ignored. Remove it."
        warnings.warn(text, FutureWarning, stacklevel=3)
    return {name: value for name, value in values.items() if name not in removed}


def renamed_names(target: object) -> Mapping[str, str]:
    """Return old name -> new name for a class decorated by `renamed_arguments`, empty for any other."""
    return getattr(target, "__renamed__", {})


def current(where: str, values: Mapping[str, Any], new_names: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with old names replaced by new ones; each gives a FutureWarning."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        new = new_names.get(name, name)
        if new != name:
            _warn(where, name, new)
        result[new] = value
    return result


def current_value(where: str, value: T, new_values: Mapping[T, T]) -> T:
    """Return the new value for an old one, with a FutureWarning."""
    if value in new_values:
        _warn(where, value, new_values[value])
        return new_values[value]
    return value


def _warn(where: str, old: object, new: object) -> None:
    text = f"{where}: {old!r} is now {new!r}; the old name works in this version only"
    warnings.warn(text, FutureWarning, stacklevel=4)
