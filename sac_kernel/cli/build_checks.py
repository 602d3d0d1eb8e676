"""What a run would refuse later is refused at the build, all of it in one message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.agent.config import GAUSSIAN
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment import learner
from sac_kernel.experiment.run_config import PURGE_DAYS, RunConfig
from sac_kernel.features.checks import read_series
from sac_kernel.features.pipeline import warmup_bars
from sac_kernel.prices.bars import spec_for
from sac_kernel.prices.costs import trading_day
from sac_kernel.prices.ingest.split import folds_of
from sac_kernel.prices.instruments import canonical, cost_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sac_kernel.prices.processed_file import ProcessedData

FOLDS, SEEDS, NULL_COPIES = 8, (0, 1, 2, 3, 4), 39
"""Of a run on the user's own bars, unless they are set."""
SAMPLE_SOURCE = "sample of "
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def with_folds(data: ProcessedData, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a run on the user's bars: with as many folds as fit, unless they set `folds`.

    A run with folds has five seeds and the pipeline's null, unless they are set.
    """
    if "folds" in parameters or data.source.startswith(SAMPLE_SOURCE):
        return dict(parameters)
    config, fitting = RunConfig.from_flat(dict(parameters)), []
    for name in traded_by(config, data):
        train, val, test = (len(trading_days(split[name])) for split in data.splits.values())
        most = min(FOLDS, (train - 2 * PURGE_DAYS) // max(1, test))
        fitting.append(folds_of(train + val + test, most, max(1, test)))
    folds = min(fitting)
    alone = config.learner == learner.BOTH or config.env.cost_tier != "base"
    if not folds or alone:
        return dict(parameters)
    null = 0 if GAUSSIAN in {config.learner_of(job)[0] for job in config.jobs} else NULL_COPIES
    return {"folds": folds, "seeds": list(SEEDS), "null_copies": null, **parameters}


def traded_by(config: RunConfig, data: ProcessedData) -> list[str]:
    """Return the instruments that a run trades on the data, by their names there."""
    return [data.trading(name).traded for name in config.instruments] or [data.traded]


def data_hashes(data: ProcessedData, instruments: Sequence[str] | None) -> list[str]:
    """Return the content hash of the data for each instrument that a run trades."""
    return [data.trading(name).content_hash for name in instruments or ()] or [data.content_hash]


def fold_lines(data: ProcessedData, parameters: Mapping[str, Any]) -> list[str]:
    """Return what the walk-forward of a build is, in words."""
    config = RunConfig.from_flat(dict(parameters))
    if not config.folds:
        return []
    count = len(config.agent_ids) * len(config.seeds) * config.folds * len(config.tiers) * len(config.runs)
    days = len(trading_days(data.test[data.traded]))
    text = (
        f"{config.folds} folds of {days} test days, seeds {', '.join(map(str, config.seeds))}, costs "
        f"{', '.join(config.tiers)}: {count} trainings"
    )
    null = f", then the chain on {config.null_copies} copies without signal" if config.null_copies else ""
    return [text + null, "--set folds=0 judges the last test days alone, in a fraction of the time"]


def trading_days(bars: pd.DataFrame) -> NDArray[np.int64]:
    """Return the trading days of bars."""
    return np.unique(trading_day(pd.DatetimeIndex(bars.index), spec_for(bars)))


def check_run(data: ProcessedData, parameters: Mapping[str, Any]) -> None:
    """Raise ConfigError that lists every parameter which does not fit the data or no machine.

    Parameters
    ----------
    data : the splits that the run will have
    parameters : flat names and values, as baked into the notebook
    """
    config = RunConfig.from_flat(dict(parameters))
    faults = []
    if _DEVICE.fullmatch(config.device) is None:
        faults.append(f"device must be auto, cpu, cuda or cuda:N, got {config.device!r}")
    # exact SAC has no episodes, so no horizon
    with_episodes = GAUSSIAN in {config.learner_of(job)[0] for job in config.jobs}
    warmup, horizon = warmup_bars(data.bar_seconds), config.env.horizon_bars if with_episodes else 1
    traded = traded_by(config, data)
    splits = [(name, instrument) for instrument in traded for name in data.splits]
    for name, instrument in splits:
        usable = len(data.splits[name][instrument]) - 1 - warmup
        needed = horizon if name == "train" else 1
        if usable < needed:
            remedy = f", or set env_horizon to {usable} or less" if name == "train" and usable > 0 else ""
            of = f"{name} of {instrument}" if len(traded) > 1 else name
            faults.append(
                f"{of} has {usable:,} bars after the warm-up of {warmup:,}, but needs {needed:,}: pass more bars"
                + remedy
            )
    charged = {symbol for symbol, _ in cost_parts(config.env.costs) if symbol}
    if unknown := charged - set(map(canonical, traded)):
        faults.append(
            f"env_costs names {', '.join(sorted(unknown))}, which is not traded: {', '.join(traded)}"
        )
    for name in traded:
        faults += _fold_faults(config, data.trading(name))
        faults += _series_faults(config, data.trading(name))
    if faults:
        msg = "The run cannot start:\n  " + "\n  ".join(faults)
        raise ConfigError(msg)


def _fold_faults(config: RunConfig, data: ProcessedData) -> list[str]:
    """Return why the folds do not fit the days of the data, if they do not."""
    if not config.folds:
        unused = {name: getattr(config, name) for name in ("null_copies", "power_copies")}
        return [f"{name} = {value} needs folds" for name, value in unused.items() if value]
    train, _, test = (len(trading_days(split[data.traded])) for split in data.splits.values())
    left = _first_train_days(config, data)
    if left >= test:
        return []
    most = max(0, (train - 2 * PURGE_DAYS) // test)
    remedy = f"set folds to {most} or less" if most >= 2 else "set folds to 0"
    found = f"folds = {config.folds} of {test} test days leave {left} train days before the first"
    return [f"{found}, but it needs {test}: {remedy}"]


def _first_train_days(config: RunConfig, data: ProcessedData) -> int:
    train, _, test = (len(trading_days(split[data.traded])) for split in data.splits.values())
    return train + test - config.folds * test - 2 * PURGE_DAYS if config.folds else train


def _series_faults(config: RunConfig, data: ProcessedData) -> list[str]:
    """Return which series begin after the first train block ends."""
    several = read_series(config.series_files)
    bars = data.train[data.traded]
    days = trading_days(bars)
    last = days[max(0, min(_first_train_days(config, data), len(days)) - 1)]
    end = bars.index[trading_day(pd.DatetimeIndex(bars.index), spec_for(bars)) <= last][-1]
    return [
        f"the series {one.name} begins after the first train rows, which end at {end}: pass earlier values"
        + (", or set fewer folds" if config.folds else "")
        for one in several
        if one.known[0] > end.timestamp()
    ]
