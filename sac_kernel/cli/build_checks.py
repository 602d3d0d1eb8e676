"""What a run would refuse later is refused at the build, all of it in one message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd

from sac_kernel.agent.config import GAUSSIAN
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.features.checks import read_series
from sac_kernel.features.pipeline import warmup_bars
from sac_kernel.prices.bars import open_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sac_kernel.prices.processed_file import ProcessedData

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


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
    for name, split in data.splits.items():
        usable = len(split[data.traded]) - 1 - warmup
        needed = horizon if name == "train" else 1
        if usable < needed:
            remedy = f", or set env_horizon to {usable} or less" if name == "train" and usable > 0 else ""
            faults.append(
                f"{name} has {usable:,} bars after the warm-up of {warmup:,}, but needs {needed:,}: pass more bars"
                + remedy
            )
    last_s = open_seconds(data.train[data.traded])[-1]
    faults += [
        f"the series {one.name} begins after the train bars, which end at {pd.Timestamp(last_s, unit='s')}: pass "
        "earlier values"
        for one in read_series(config.series_files)
        if one.known[0] > last_s
    ]
    if faults:
        msg = "The run cannot start:\n  " + "\n  ".join(faults)
        raise ConfigError(msg)
