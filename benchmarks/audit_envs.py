"""`python -m benchmarks.audit_envs`: the audit on this project's env and on its peers from PyPI.

Needs gym-anytrading 2.0.0 and, in an environment of its own if its pins clash, gym-trading-env 0.3.5; a
peer that is not installed is left out and named. Prints the tables of docs/audits.md.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market import audit
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingEnvironment

if TYPE_CHECKING:
    import pandas as pd

WINDOW = 10


def our_env(bars: pd.DataFrame) -> TradingEnvironment:
    """Return this project's env over the last 40 % of bars, its scaler fitted on the first 55 %."""
    first, second = int(0.55 * len(bars)), int(0.6 * len(bars))
    parts = [{"EURUSD": part} for part in (bars[:first], bars[first:second], bars[second:])]
    features = FeaturePipeline().run_full_pipeline(*parts)[2]
    config = TradingEnvConfig(price_side="bid")
    return TradingEnvironment(bars[second:], features, config, eval_mode=True)


def anytrading(name: str, **options: Any) -> Any:
    """Return a maker of a gym-anytrading env over all bars."""
    from gym_anytrading.envs import ForexEnv, StocksEnv

    kind = {"stocks-v0": StocksEnv, "forex-v0": ForexEnv}[name]

    def make(bars: pd.DataFrame) -> Any:
        titled = bars.rename(columns=str.capitalize)
        return kind(df=titled, window_size=WINDOW, frame_bound=(WINDOW, len(bars)), **options)

    return make


def trading_env(bars: pd.DataFrame) -> Any:
    """Return Gym-Trading-Env as its documentation builds it: a close-return feature, fees, from flat."""
    from gym_trading_env.environments import TradingEnv

    frame = bars.copy()
    frame["feature_close"] = frame["close"].pct_change().fillna(0.0)
    return TradingEnv(
        df=frame, positions=[0, 1], trading_fees=0.01 / 100, initial_position=0, verbose=0, windows=None
    )


def subjects() -> list[audit.Subject]:
    """Return the envs that are installed."""
    found = [audit.Subject("sac-kernel TradingEnvironment", our_env)]
    if importlib.util.find_spec("gym_anytrading"):
        found += [
            audit.Subject("gym-anytrading stocks-v0", anytrading("stocks-v0"), round),
            audit.Subject("gym-anytrading forex-v0", anytrading("forex-v0", unit_side="right"), round),
        ]
    if importlib.util.find_spec("gym_trading_env"):
        found += [audit.Subject("Gym-Trading-Env TradingEnv", trading_env, round)]
    return found


def version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def main() -> int:
    """Print one table an env as Markdown, with versions and the date."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    packages = ("numpy", "pandas", "gymnasium", "gym-anytrading", "gym-trading-env")
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, seed 0, {', '.join(map(version, packages))}")
    for subject in subjects():
        print(f"\n{audit.audit(subject)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
