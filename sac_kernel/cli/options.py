"""Options that several commands share, with one spelling and meaning each, and the older spellings still accepted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sac_kernel.experiment.run_config import PARAMETERS, RUN_PRESETS
from sac_kernel.prices.bars import PRICE_SIDES
from sac_kernel.prices.costs import COST_TIERS
from sac_kernel.prices.instruments import KINDS


def integers(text: str) -> tuple[int, ...]:
    """Return '1,2' as (1, 2)."""
    return tuple(int(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    """Return 'a,b' as ('a', 'b')."""
    return tuple(part.strip() for part in text.split(","))


SHARED: dict[str, dict[str, Any]] = {
    "data": {"type": Path, "metavar": "H5", "help": "processed bars (default: found automatically)"},
    "output": {"type": Path, "metavar": "DIR", "help": "output folder"},
    "agents": {"type": integers, "metavar": "1,2,3", "help": "1 short-term, 2 medium, 3 swing"},
    "seeds": {"type": integers, "metavar": "0,1,...", "help": "random seeds, one training for each"},
    "set": {"action": "append", "metavar": "NAME=VALUE", "help": "a parameter (listed below); repeatable"},
    "preset": {
        "choices": tuple(RUN_PRESETS),
        "help": "length of the training: sets episodes and both frequencies",
    },
    "config": {"type": Path, "metavar": "TOML", "help": "file of parameters, one NAME = VALUE per line"},
    "device": {"help": PARAMETERS["device"].help},
    "model": {"type": Path, "metavar": "FILE", "help": "an agent's .pt, or models/current.json"},
    "bars": {
        "type": Path,
        "metavar": "PATH",
        "help": "bars: a file or a folder of instruments",
    },
    "features": {
        "type": Path,
        "metavar": "FILE.py",
        "help": "your own features: a file with a function features(bars) or features(bars, series)",
    },
    "series": {
        "type": Path,
        "action": "append",
        "metavar": "FILE",
        "help": "an extra series, CSV with a column known_at: when each value was published; repeatable",
    },
    "only-own-features": {
        "action": "store_true",
        "help": "your own features and series replace the thirty instead of joining them",
    },
    "journal": {"type": Path, "metavar": "DIR", "help": "folder of the session"},
    "workers": {"type": int, "default": 1, "metavar": "N", "help": "processes on this machine"},
    "tiers": {
        "type": words,
        "metavar": ",".join(COST_TIERS),
        "help": "cost tiers; an agent is trained for each",
    },
    "cost-tier": {"choices": tuple(COST_TIERS), "default": "base", "help": "costs that the account pays"},
    "costs": {
        "metavar": "NAME=VALUE,...",
        "help": "own costs of the traded instrument: spread_bps, commission_bps or commission_per_lot (a side), "
        "slippage_bps, swap_long_bps, swap_short_bps, or spread=column; tiers are x .5, x 1, x 2 of them",
    },
    "folds": {"type": int, "metavar": "N", "help": "walk-forward folds"},
    "test-days": {
        "type": int,
        "default": 60,
        "metavar": "N",
        "help": "trading days in the test part of a fold",
    },
    "val-days": {
        "type": int,
        "default": 40,
        "metavar": "N",
        "help": "trading days in the validation part of a fold",
    },
    "address": {"default": "", "help": "Ray cluster: auto, or ray://HOST:10001"},
    "price-side": {
        "choices": PRICE_SIDES,
        "help": "whether the prices are bid, ask or mid; needed if the file does not say",
    },
    "clock": {
        "metavar": "ZONE",
        "help": "time zone of the bars: UTC, an IANA zone, histdata or mt-eet; needed if the file does not show it",
    },
}


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formatter that shows each default except None, False and empty ones."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.default
        silent = default is None or default is False or default in ("", [], argparse.SUPPRESS)
        if not silent and "default:" not in text:
            value = ",".join(map(str, default)) if isinstance(default, tuple) else default
            text = f"{text} (default: {value})"
        return text.replace("%", "%%")


def describe(parser: argparse.ArgumentParser, description: str | None, *, parameters: bool = False) -> None:
    """Set a command's description and formatter and, if it takes `--set`, list the parameters."""
    parser.description = description
    parser.formatter_class = HelpFormatter
    if parameters:
        lines = [f"  {name} = {p.default!r}  {p.help}" for name, p in PARAMETERS.items()]
        parser.epilog = "\n".join(("parameters, with their defaults:", *lines))


def add(parser: argparse.ArgumentParser, name: str, **changes: Any) -> None:  # noqa: ANN401
    """Add a shared option; `changes` replace help, default or other settings for this command."""
    settings = {**SHARED[name], **changes}
    if settings.get("action") == "append":
        settings.setdefault("default", [])
    parser.add_argument(f"--{name}", **settings)


def older(parser: argparse.ArgumentParser, name: str, *spellings: str) -> None:
    """Accept older spellings of an option, hidden from the help."""
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


def add_instrument(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is traded and what it costs."""
    parser.add_argument(
        "--instrument",
        default="",
        metavar="NAME",
        help="the traded instrument (default: that of PATH, or EURUSD)",
    )
    parser.add_argument(
        "--kind",
        default="",
        choices=KINDS,
        help="kind of an instrument that is not built in (docs/instruments.md)",
    )
    parser.add_argument(
        "--instrument-spec",
        default="",
        metavar="TOML",
        help="file with costs, calendar and hours of the instrument",
    )
    add(parser, "costs", default="")


def add_source(parser: argparse.ArgumentParser, **changes: Any) -> None:  # noqa: ANN401
    """Add the options that say where bars come from, what is traded and what it costs; `changes` are of --data."""
    add(parser, "data", **changes)
    add(parser, "price-side", help="whether the prices of PATH are bid, ask or mid")
    add(
        parser,
        "clock",
        help="time zone of PATH: UTC, an IANA zone, histdata or mt-eet; needed if the files do not show it",
    )
    add_instrument(parser)
    parser.add_argument(
        "--bar-minutes", type=int, default=0, metavar="N", help="aggregate bars to N minutes; 0 keeps them"
    )
    parser.add_argument(
        "--accept-outliers", action="store_true", help="take bars that look wrong as they are, with a note"
    )
    parser.add_argument(
        "--repair-rounding",
        action="store_true",
        help="widen highs and lows that miss open or close by one price step, with a note",
    )


SOURCE = (
    "instrument",
    "kind",
    "instrument_spec",
    "costs",
    "price_side",
    "clock",
    "bar_minutes",
    "accept_outliers",
    "repair_rounding",
)
"""Options of `add_source` that `prices.pipeline.DataConfig` takes under the same name."""


def source_of(path: Path) -> str:
    """Return the kind of source that a path of bars is, as `DataConfig` names it."""
    return "h5" if path.suffix.lower() in (".h5", ".hdf5") else "files"


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add --features and --series to a command that uses a saved agent; `cli.main` reads the files."""
    text = "the feature file that the agent was trained with, if it was"
    add(parser, "features", help=text)
    add(
        parser,
        "series",
        help="an extra series that the agent was trained with, up to the present; repeatable",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that define a run: agents, seeds, parameters."""
    for name, parameter in (("agents", "agent_ids"), ("seeds", "seeds")):
        default = ",".join(map(str, PARAMETERS[parameter].default))
        add(parser, name, help=f"{SHARED[name]['help']} (default: {default})")
    for name in ("preset", "config", "set", "features", "series", "only-own-features"):
        add(parser, name)
