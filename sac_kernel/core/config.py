"""Strict configuration: frozen dataclasses filled from flat names; errors suggest the nearest name.

Notebook parameters are scalars or flat lists of scalars named `<section>_<field>`. This module turns them
into dataclass fields and rejects unknown names.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import re
import types
import typing
from typing import Any, TypeVar

from sac_kernel.core.errors import ConfigError
from sac_kernel.core.renamed import current, renamed_names, without_removed

if typing.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint ' (did you mean ...?)' for an unknown `name`, or '' when none is near."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def check_names(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for an unknown name, naming the nearest known one."""
    known = list(known)
    for name in given:
        if name not in known:
            msg = f"{where}: unknown parameter {name!r}{nearest(name, known)}; known: {', '.join(known)}"
            raise ConfigError(msg)


def typed(where: str, name: str, value: object, annotation: Any) -> Any:  # noqa: ANN401
    """Return `value` as the annotated type, or raise ConfigError.

    An int is accepted as a float and a list as a tuple. Nothing else is converted: True is not a number,
    3.0 is not an int, '3' is neither.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        (annotation,) = (a for a in args if a is not type(None))
        return typed(where, name, value, annotation)
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            raise _type_error(where, name, value, f"a flat list of {args[0].__name__}")
        return origin(typed(where, f"{name}[{i}]", item, args[0]) for i, item in enumerate(value))
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise _type_error(where, name, value, "a finite number")
    if type(value) is not annotation:
        raise _type_error(where, name, value, getattr(annotation, "__name__", str(annotation)))
    return value


def from_flat(cls: type[T], values: Mapping[str, object], where: str) -> T:
    """Build dataclass `cls` from a flat mapping, strict on names and types.

    Raises
    ------
    ConfigError
        If a name is not a field of `cls`, or a value has the wrong type or range.
    """
    hints = typing.get_type_hints(cls)
    values = current(where, without_removed(cls, where, values), renamed_names(cls))
    names = [f.name for f in dataclasses.fields(cls) if f.init]  # type: ignore[arg-type]  # T is a dataclass
    check_names(where, values, names)
    return cls(**{k: typed(where, k, v, hints[k]) for k, v in values.items()})


def to_flat(config: object) -> dict[str, Any]:
    """Return a dataclass as plain values that JSON and a `.pt` can hold; tuples become lists."""
    flat = dataclasses.asdict(config)  # type: ignore[call-overload]  # any dataclass instance
    return {k: list(v) if isinstance(v, tuple) else v for k, v in flat.items()}


def field_help(cls: type) -> dict[str, str]:
    """Return field -> the first sentence of its entry under Attributes in a class's docstring, on one line.

    The parameters cell and the command line's help show these sentences.
    """
    entry, texts = re.compile(r"(\w+(?:, \w+)*) : (.*)"), dict[str, str]()
    names: list[str] = []
    for line in inspect.cleandoc(cls.__doc__ or "").partition("Attributes\n")[2].splitlines():
        start = entry.fullmatch(line)
        if start:
            names = start[1].split(", ")
        for name in names:
            texts[name] = f"{texts.get(name, '')} {start[2] if start else line.strip()}".strip()
    return {name: text.partition(". ")[0].removesuffix(".") for name, text in texts.items()}


def difference(saved: Mapping[str, object], here: Mapping[str, object]) -> list[str]:
    """Return one line per name whose value differs: 'gamma: saved 0.99, here 0.9'."""
    missing = object()
    return [
        f"{name}: saved {saved.get(name, 'nothing')!r}, here {here.get(name, 'nothing')!r}"
        for name in sorted({*saved, *here})
        if saved.get(name, missing) != here.get(name, missing)
    ]


def require(ok: bool, where: str, required: str, found: object) -> None:
    """Raise ConfigError '<where>: <required>, got <found>' unless `ok`."""
    if not ok:
        msg = f"{where}: {required}, got {found!r}"
        raise ConfigError(msg)


def _type_error(where: str, name: str, value: object, wanted: str) -> ConfigError:
    return ConfigError(f"{where}: {name} must be {wanted}, got {value!r} ({type(value).__name__})")
