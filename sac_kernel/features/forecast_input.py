"""Agent 2's extra input: a forecast of the next return.

The forecast is fitted before training (`features.forecast`), on train rows alone. A train row gets the forecast of
a model that never saw its block in time, so the agent learns how far it can trust the feature on new rows; other
rows get the model of all train rows. A row's time determines its model, so the saved agent gives the same column
bit for bit without the train rows.

docs/learning.md compares this with heads on the agent's own networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.features.forecast import ReturnForecast, block_starts, fit_forecast
from sac_kernel.prices import costs
from sac_kernel.prices.bars import side_of, spec_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

FEATURE = "return_forecast"
_SIDE = {"bid": 1.0, "ask": -1.0, "mid": 0.0}


@dataclass(frozen=True)
class ForecastInput:
    """A fitted prediction of the next return.

    Attributes
    ----------
    estimate : the forecast E[next return | features]
    unit : its standard deviation on train rows, the unit of the feature
    starts : (folds,) Unix seconds, the first train row of each block in time
    end : Unix seconds, the last train row
    """

    estimate: ReturnForecast
    unit: float
    starts: IntArray
    end: int

    @classmethod
    def fit(cls, features: ArrayLike, returns: FloatArray, seconds: IntArray, purge: int) -> ForecastInput:
        """Fit on train rows.

        Parameters
        ----------
        features, purge : as in `fit_forecast`
        returns : (rows,), as of `next_returns`; NaN is not learnt from
        seconds : (rows,) Unix time of each row, ascending
        """
        estimate = fit_forecast(features, returns, purge=purge)
        unit = float(estimate.train.std())
        return cls(
            estimate, unit or 1.0, seconds[block_starts(len(seconds), estimate.folds)], int(seconds[-1])
        )

    def column(self, features: ArrayLike, seconds: IntArray) -> FloatArray:
        """Return the feature (rows,) of features (rows, columns) at `seconds` (rows,); 0 where a row has NaN."""
        features = np.asarray(features)
        fold = np.searchsorted(self.starts, seconds, side="right") - 1  # -1 before the first
        fold[seconds > self.end] = -1
        forecast = np.empty(len(seconds))
        for k in range(-1, len(self.starts)):
            rows = fold == k
            forecast[rows] = self.estimate.predict(features[rows], k) / self.unit
        return forecast

    def state(self) -> dict[str, Any]:
        """Return the fit as plain values."""
        return {
            "estimate": self.estimate.state(), "unit": self.unit, "starts": self.starts.tolist(), "end": self.end,
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> ForecastInput:
        """Return the fit of `state`."""
        estimate = ReturnForecast.from_state(state["estimate"])
        return cls(estimate, float(state["unit"]), np.asarray(state["starts"], np.int64), int(state["end"]))


def next_returns(bars: pd.DataFrame, bar_seconds: int) -> FloatArray:
    """Return the log return of the mid price from each close to the next, shape (rows,).

    NaN in the last row, and where an order given at the close would meet the evening freeze. Mid prices come from the
    usual spread at that time of day (base costs): when the spread widens bids fall, and that is no return.

    Raises
    ------
    DataError
        If the bars do not say their price side.
    """
    import pandas as pd

    close = bars["close"].to_numpy(np.float64)
    opened = pd.DatetimeIndex(bars.index)
    moment = opened + pd.Timedelta(seconds=bar_seconds - 1)  # the bar's last second
    spec = spec_for(bars)
    spread = costs.spread_of(bars, moment, "base", spec, bar_seconds) * 1e-4
    mid = close * (1.0 + _SIDE[side_of(bars, "bar table")] * spread / 2.0)
    returns = np.where(costs.is_tradable(opened[1:], spec, bar_seconds), np.diff(np.log(mid)), np.nan)
    return np.append(returns, np.nan)
