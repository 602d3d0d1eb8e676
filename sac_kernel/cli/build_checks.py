"""What a run would refuse later is refused at the build, all of it in one message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sac_kernel.agent.config import GAUSSIAN
from sac_kernel.core.errors import ConfigError
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.features.pipeline import warmup_bars
from sac_kernel.prices.instruments import canonical, cost_parts

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
    traded = [data.trading(name).traded for name in config.instruments] or [data.traded]
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
    if faults:
        msg = "The run cannot start:\n  " + "\n  ".join(faults)
        raise ConfigError(msg)
