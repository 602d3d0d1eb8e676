"""Leaks, looked for where none can pay: on a random walk nothing earns before costs, and fits see train rows only.

With `feature_engineering.assert_causal` these are the audit: a future column, a fill in the bar that was
just seen, or a scaler fitted on all bars each trips at least one of them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from sac_kernel import baselines, stress
from sac_kernel.bar_engine import Bar, Par
from sac_kernel.errors import DataError
from sac_kernel.evaluation import run_targets

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from sac_kernel.data_pipeline import Bars
    from sac_kernel.trading_env import Market

    Features = Callable[[Bars, Bars, Bars], tuple[pd.DataFrame, ...]]

MAX_T = 4.5
"""Largest t value of luck: over 100 features one in 1,500 audits exceeds it."""


def feature_t_values(market: Market) -> dict[str, float]:
    """Return, for each feature, the t value of the daily returns of following its sign free of all costs.

    Parameters
    ----------
    market : features on bars of a driftless random walk; on real bars a large value may be real
    """
    free, targets = _free(market), market.observed[baselines.decision_rows(market)]
    out = {}
    for i, name in enumerate(market.feature_names):
        sign = np.sign(targets[:, i] - np.median(targets[:, i])).astype(np.float64)
        daily = run_targets(free, sign, 1.0, name, "free").daily_returns
        error = float(daily.std(ddof=1)) / math.sqrt(daily.size)
        out[name] = float(daily.mean()) / error if error > 0 else 0.0
    return out


def assert_nothing_earns(market: Market) -> dict[str, float]:
    """Check that no feature's sign earns or loses on a random walk before costs; return the t values.

    Raises
    ------
    DataError
        Naming the features: they, or the engine's fills, know a price that they cannot know.
    """
    found = feature_t_values(market)
    wrong = sorted((name for name, t in found.items() if abs(t) > MAX_T), key=lambda name: -abs(found[name]))
    if wrong:
        named = ", ".join(f"{name} (t = {found[name]:.1f})" for name in wrong[:3])
        msg = (
            f"audit: on a random walk |t| <= {MAX_T} before costs is required of every feature, found {named}; "
            "a feature sees later bars, or fills are at a price already shown"
        )
        raise DataError(msg)
    return found


def assert_fitted_on_train(features: Features, train: Bars, val: Bars, test: Bars) -> None:
    """Check that train features do not change, bit for bit, when later splits do.

    Parameters
    ----------
    features : (train, val, test) -> their features, fitted anew at each call

    Raises
    ------
    DataError
        Naming the columns: a scaler or model was fitted on validation or test rows.
    """
    before = features(train, val, test)[0]
    after = features(
        train, *({name: _edited(bars) for name, bars in split.items()} for split in (val, test))
    )[0]
    wrong = [str(c) for c in before.columns if not np.array_equal(before[c], after[c], equal_nan=True)]
    if wrong:
        msg = (
            f"audit: train features must not depend on validation and test bars, found that "
            f"{', '.join(wrong[:3])} ({len(wrong)} in all) changed with them; fit on train rows only"
        )
        raise DataError(msg)


def _edited(bars: pd.DataFrame) -> pd.DataFrame:
    """Return bars three times as volatile, gaps included."""
    columns = ["open", "high", "low", "close"]
    out = bars.copy()
    out[columns] = bars["open"].iloc[0] * (bars[columns] / bars["open"].iloc[0]) ** 3
    out.attrs = dict(bars.attrs)
    return out


def _free(market: Market) -> Market:
    """Return the market without costs, swap and closed hours."""
    free = stress.with_costs(market, 0.0)
    bars, par = free.bars.copy(), free.par.copy()
    bars[:, Bar.TRADABLE] = 1.0
    par[[Par.SWAP_LONG, Par.SWAP_SHORT]] = 0.0
    return dataclasses.replace(free, bars=bars, par=par)
