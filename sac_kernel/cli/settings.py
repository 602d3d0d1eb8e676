"""Parameters from the command line: settings file, preset, `--set`, options. Later ones override earlier ones."""

from __future__ import annotations

import ast
import tomllib
from typing import TYPE_CHECKING, Any

from sac_kernel.core.config import check_names, typed
from sac_kernel.core.errors import ConfigError, InputNotFoundError
from sac_kernel.core.renamed import current
from sac_kernel.experiment.run_config import PARAMETERS, RENAMED_PARAMETERS, RUN_PRESETS, RunConfig, checked
from sac_kernel.features.checks import read_series
from sac_kernel.features.own import OwnFeatures

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_OF_A_PRESET = ("num_episodes", "eval_frequency", "checkpoint_frequency")

_MAX_TOML_BYTES = 1 << 20


def parameters(args: argparse.Namespace, **options: str) -> dict[str, Any]:
    """Return the parameters that a command line sets, checked together, as plain values.

    Parameters
    ----------
    args : with `config`, `preset` and `set`
    options : parameter = name of the option that sets it in this command

    Raises
    ------
    ConfigError
        For an unknown name (with the nearest), a wrong type or a value out of range.
    """
    values = read_settings_file(args.config) if args.config else {}
    if args.preset:
        values |= dict(zip(_OF_A_PRESET, RUN_PRESETS[args.preset], strict=True))
    values |= _settings(args.set)
    if getattr(args, "features", None):
        own = OwnFeatures.load(args.features)
        values |= {"features_file": str(args.features), "features_hash": own.sha256}
    if getattr(args, "series", None):
        read_series(args.series)
        values["series_files"] = [str(path) for path in args.series]
    if getattr(args, "only_own_features", False):
        values["only_own_features"] = True
    for name, option in options.items():
        given = getattr(args, option)
        if given is not None:
            values[name] = (
                list(given) if isinstance(given, tuple) else given if name == "device" else str(given)
            )
    return _checked_together(values, "parameters")


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Return the checked parameters of `--set name=value` texts.

    Raises
    ------
    ConfigError
        For a missing `=`, an unknown name (with the nearest), a wrong type or a value out of range.
    """
    return _checked_together(_settings(settings), "--set")


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the parameters of a TOML file, whose top-level keys are their names.

    Raises
    ------
    InputNotFoundError
        If there is no such file.
    ConfigError
        If it is not TOML, or a name or type is wrong. Ranges are checked later, with the other parameters.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_TOML_BYTES + 1)
        if len(text) > _MAX_TOML_BYTES:
            msg = f"--config: {path} is larger than {_MAX_TOML_BYTES:,} bytes."
            raise ConfigError(msg)
        content = tomllib.loads(text.decode("utf-8"))
    except FileNotFoundError as err:
        msg = f"--config: {path} does not exist."
        raise InputNotFoundError(msg) from err
    except (OSError, ValueError, RecursionError) as err:  # ValueError: of TOML, UTF-8 and numbers too long
        msg = f"--config: {path} is not valid TOML: {str(err)[:200] or type(err).__name__}"
        raise ConfigError(msg) from err
    return _plain(checked(content, str(path)))


def _checked_together(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the parameters as a run has them, with current names for renamed values."""
    flat = RunConfig.from_flat(values, where).flat()
    return {name: flat[name] for name in values}


def _settings(settings: Iterable[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in settings:
        name, equals, value = text.partition("=")
        name = name.strip()
        (name,) = current("--set", {name: None}, RENAMED_PARAMETERS)
        if not equals:
            msg = f"--set takes NAME=VALUE, got {text!r}."
            raise ConfigError(msg)
        check_names("--set", [name], PARAMETERS)
        annotation = PARAMETERS[name].type
        values[name] = typed("--set", name, _literal(value.strip(), annotation), annotation)
    return _plain(values)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _literal(text: str, annotation: Any) -> Any:  # noqa: ANN401
    if annotation is str:
        return text.strip("\"'")
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # the type check reports it
