"""Options that several commands share: one spelling and one meaning each, and the older spellings they replace."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sac_kernel.experiment.run_config import PARAMETERS, RUN_PRESETS
from sac_kernel.prices.bars import PRICE_SIDES
from sac_kernel.prices.costs import COST_TIERS


def integers(text: str) -> tuple[int, ...]:
    """Return '1,2' as (1, 2)."""
    return tuple(int(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    """Return 'a,b' as ('a', 'b')."""
    return tuple(part.strip() for part in text.split(","))


SHARED: dict[str, dict[str, Any]] = {
    "data": {"type": Path, "metavar": "H5", "help": "processed bars; found by itself if left out"},
    "output": {"type": Path, "metavar": "DIR", "help": "output folder"},
    "agents": {"type": integers, "metavar": "1,2,3", "help": "1 short-term, 2 medium, 3 swing"},
    "seeds": {"type": integers, "metavar": "0,1,...", "help": "one training each"},
    "set": {"action": "append", "metavar": "NAME=VALUE", "help": "a parameter (listed below); repeatable"},
    "preset": {"choices": tuple(RUN_PRESETS), "help": "how long: sets episodes and both frequencies"},
    "config": {"type": Path, "metavar": "TOML", "help": "file of parameters, one NAME = VALUE a line"},
    "device": {"help": PARAMETERS["device"].help},
    "model": {"type": Path, "metavar": "FILE", "help": "an agent's .pt, or models/current.json"},
    "bars": {"type": Path, "metavar": "PATH", "help": "bars: a file, or a folder of instruments"},
    "journal": {"type": Path, "metavar": "DIR", "help": "where the session is kept"},
    "workers": {"type": int, "default": 1, "metavar": "N", "help": "processes on this machine"},
    "tiers": {
        "type": words,
        "metavar": ",".join(COST_TIERS),
        "help": "cost tiers; an agent is trained for each",
    },
    "cost-tier": {"choices": tuple(COST_TIERS), "default": "base", "help": "what the account pays"},
    "folds": {"type": int, "metavar": "N", "help": "walk-forward folds"},
    "test-days": {"type": int, "default": 60, "metavar": "N", "help": "trading days of a fold's test"},
    "val-days": {"type": int, "default": 40, "metavar": "N", "help": "trading days of a fold's validation"},
    "address": {"default": "", "help": "of a Ray cluster: auto, or ray://HOST:10001"},
    "price-side": {"choices": PRICE_SIDES, "help": "what the prices are, if the file does not say"},
    "clock": {
        "metavar": "ZONE",
        "help": "UTC, an IANA zone, histdata or mt-eet, if the file does not prove it",
    },
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Shows each default that says something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.default
        silent = default is None or default is False or default in ("", [], argparse.SUPPRESS)
        if not silent and "default:" not in text:
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
            text = f"{text} (default: {shown})"
        return text.replace("%", "%%")


def describe(parser: argparse.ArgumentParser, description: str | None, *, parameters: bool = False) -> None:
    """Give a command its description, its formatter and, where it takes `--set`, the list of parameters."""
    parser.description = description
    parser.formatter_class = HelpFormatter
    if parameters:
        lines = [f"  {name} = {p.default!r}  {p.help}" for name, p in PARAMETERS.items()]
        parser.epilog = "\n".join(("parameters, with their defaults:", *lines))


def add(parser: argparse.ArgumentParser, name: str, **changes: Any) -> None:  # noqa: ANN401
    """Add a shared option; `changes` are what is this command's own: help, default, required."""
    settings = {**SHARED[name], **changes}
    if settings.get("action") == "append":
        settings.setdefault("default", [])
    parser.add_argument(f"--{name}", **settings)


def older(parser: argparse.ArgumentParser, name: str, *spellings: str) -> None:
    """Accept older spellings of an option, without showing them."""
    kept = {key: value for key, value in SHARED[name].items() if key in ("type", "choices", "action")}
    dest = name.replace("-", "_")
    parser.add_argument(*spellings, dest=dest, help=argparse.SUPPRESS, default=argparse.SUPPRESS, **kept)


def older_settings(parser: argparse.ArgumentParser, **names: str) -> None:
    """Accept older options that stand for `--set NAME=VALUE`: spelling with underscores = parameter."""
    for spelling, parameter in names.items():
        parser.add_argument(
            f"--{spelling.replace('_', '-')}",
            action="append",
            dest="set",
            type=f"{parameter}={{}}".format,
            help=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
        )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what names a run: agents, seeds, settings."""
    for name, parameter in (("agents", "agent_ids"), ("seeds", "seeds")):
        default = ",".join(map(str, PARAMETERS[parameter].default))
        add(parser, name, help=f"{SHARED[name]['help']} (default: {default})")
    for name in ("preset", "config", "set"):
        add(parser, name)
