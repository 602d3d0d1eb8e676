"""What the decisions of exact SAC pay: the equations of `exact`, laid out as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sac_kernel.agent.exact_grid import position_grid
from sac_kernel.core.config import require
from sac_kernel.core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sac_kernel.agent.exact_config import ExactConfig

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

LEAST_ROWS = 32
"""Starts that a problem must have."""

_COLUMNS: dict[str, type] = {"cost": np.float64, "tradable": bool, "valid": bool, "variance": np.float64}


@dataclass(frozen=True, eq=False)
class ExactProblem:
    """What one decision at each row pays, for any position held before and any target. Returns come unscaled.

    The successor of row t is row t + stride. Every valid row is a start. Of a successor beyond the T rows
    only the features are known: it has the last row's cost, can be traded, and its `before_fill` is 0.

    Attributes
    ----------
    features : (T + stride, D), known at the close of each row
    returns : (T,), of a unit position, from the fill to the end of the decision: realised, or a forecast
    cost : of trading a unit, a fraction, >= 0, as known at the close; (T,) or one for all
    tradable : (T,), whether an order given at this row can fill before the next decision; None is always
    holding_cost : (T, G), paid for holding each position after the fill; None is 0
    before_fill : (T, G), earned by each position held before the fill; where nothing can fill, over the whole
        decision, with `returns` and `holding_cost` 0 there (or the other way round: it is one position). None is 0
    variance : (T,), of `returns` given the row's features, for `risk_aversion`
    valid : (T,), rows that are starts; None is all
    stride : rows from one decision to the next

    Raises
    ------
    DataError
        If a shape does not fit, a valid row or its successor is not finite, a cost or variance is negative, or fewer
        than `LEAST_ROWS` rows are valid.
    """

    features: Any
    returns: Any
    cost: Any
    tradable: Any = None
    holding_cost: Any = None
    before_fill: Any = None
    variance: Any = None
    valid: Any = None
    stride: int = 1

    def __post_init__(self) -> None:
        require(self.stride >= 1, "ExactProblem", "stride must be >= 1", self.stride)
        self._set("features", np.asarray(self.features, np.float32))
        self._set("returns", np.asarray(self.returns, np.float64))
        if self.returns.ndim != 1 or self.features.ndim != 2 or self.features.shape[1] == 0:
            msg = (
                f"ExactProblem: features have shape {self.features.shape} and returns {self.returns.shape}. Give "
                "features of shape (T + stride, D) and returns of shape (T,)."
            )
            raise DataError(msg)
        if len(self.features) != self.rows + self.stride:
            msg = (
                f"ExactProblem: features have {len(self.features)} rows. {self.rows} returns with stride {self.stride} "
                f"need {self.rows + self.stride}, because the last rows have successors too."
            )
            raise DataError(msg)
        if np.ndim(self.cost) == 0:
            self._set("cost", np.full(self.rows, float(self.cost)))
        for name, dtype in _COLUMNS.items():
            self._set_column(name, dtype, 1)
        for name in ("holding_cost", "before_fill"):
            self._set_column(name, np.float64, 2)
        self._check_values()

    @property
    def rows(self) -> int:
        """Return T."""
        return len(self.returns)

    @property
    def starts(self) -> IntArray:
        """Return the rows that decisions are drawn from."""
        return np.arange(self.rows) if self.valid is None else np.flatnonzero(self.valid)

    def reward(self, rows: IntArray, positions: IntArray, targets: IntArray, grid: FloatArray) -> FloatArray:
        """Return what decisions pay, b(p) + a y - k(a) - c |a - p|, (n,), by places of the grid (n,) each.

        Where nothing can fill, the position is kept whatever the target is.
        """
        fills = np.ones(len(rows), bool) if self.tradable is None else self.tradable[rows]
        held = np.where(fills, targets, positions)
        paid = grid[held] * self.returns[rows]
        paid -= self.cost[rows] * np.abs(grid[held] - grid[positions])
        if self.holding_cost is not None:
            paid -= self.holding_cost[rows, held]
        if self.before_fill is not None:
            paid += self.before_fill[rows, positions]
        return np.asarray(paid)

    def _check_values(self) -> None:
        starts = self.starts
        if len(starts) < LEAST_ROWS:
            msg = (
                f"ExactProblem: only {len(starts)} of {self.rows} rows are valid, fewer than {LEAST_ROWS}. Give more "
                "bars, or mark more rows as valid."
            )
            raise DataError(msg)
        after = starts + self.stride
        known = after[after < self.rows]
        used = np.zeros(len(self.features), bool)
        used[starts] = used[after] = True
        self._check_finite("features", used)
        for name in ("returns", "holding_cost", "variance"):
            self._check_finite(name, used[: self.rows] & np.isin(np.arange(self.rows), starts))
        for name in ("cost", "before_fill"):
            rows = np.zeros(self.rows, bool)
            rows[known] = True
            if name == "cost":
                rows[starts], rows[-1] = True, True
            self._check_finite(name, rows)
        for name in ("cost", "variance"):
            value = getattr(self, name)
            if value is not None and (value[starts] < 0.0).any():
                row = int(starts[np.argmax(value[starts] < 0.0)])
                msg = f"ExactProblem: {name}[{row}] = {value[row]} is negative; {name} must be >= 0"
                raise DataError(msg)

    def _check_finite(self, name: str, rows: NDArray[np.bool_]) -> None:
        value = getattr(self, name)
        if value is None:
            return
        bad = ~np.isfinite(value)
        bad = (bad.any(axis=1) if bad.ndim == 2 else bad) & rows
        if bad.any():
            row = int(np.argmax(bad))
            found = np.ravel(value[row])
            msg = (
                f"ExactProblem: {name}[{row}] = {found[~np.isfinite(found)][0]} in a row used for training. "
                "Exclude that row, and the row `stride` before it, from `valid`."
            )
            raise DataError(msg)

    def _set_column(self, name: str, dtype: type, ndim: int) -> None:
        if getattr(self, name) is None:
            return
        self._set(name, np.asarray(getattr(self, name), dtype))
        found = getattr(self, name).shape
        if len(found) != ndim or found[0] != self.rows:
            shape = f"({self.rows},)" if ndim == 1 else f"({self.rows}, positions)"
            msg = f"ExactProblem: {name} has shape {found}. Its shape must be {shape}."
            raise DataError(msg)

    def _set(self, name: str, value: Any) -> None:  # noqa: ANN401  # an array of any kind
        object.__setattr__(self, name, value)


def reward_scale(problem: ExactProblem) -> float:
    """Return 1 / (size of a decision's reward), to six digits: what a unit earns, or half its one-way cost if more.

    What a unit earns is `returns` and what it goes on to earn before the next fill, root mean square over the starts.
    Rewards that are nearly all cost would be huge in units of a small forecast, and huge values are learnt slowly.

    Raises
    ------
    DataError
        If nothing is ever earned or paid.
    """
    starts = problem.starts
    earned = problem.returns[starts]
    if problem.before_fill is not None:
        after = starts + problem.stride
        known = after < problem.rows
        gap = problem.before_fill[after[known]]
        earned[known] += 0.5 * (gap[:, -1] - gap[:, 0])
    size = max(float(np.sqrt(np.mean(np.square(earned)))), 0.5 * float(problem.cost[starts].mean()))
    if not 0.0 < size < np.inf:
        msg = (
            f"reward_scale: the returns and costs of {len(starts)} rows have size {size}, so no decision matters. Give "
            "returns that vary, or a cost."
        )
        raise DataError(msg)
    return float(f"{1.0 / size:.6g}")


def reward_table(problem: ExactProblem, config: ExactConfig, scale: float) -> FloatArray:
    """Return all of a row's target that the network does not say, in scaled units, (T, G + 1).

    Columns of positions: a y_t - lambda / 2 sigma_t^2 a^2 - k_t(a) + gamma (b_{t'}(a) - alpha log G), where t' is the
    successor and the last term, which makes the soft sum a soft mean, is left out where nothing can fill at t'.
    Last column: c_{t'} dx / alpha, infinite where nothing can fill, with dx the distance of two positions.
    """
    grid, rows = position_grid(config.positions), problem.rows
    after = np.minimum(np.arange(rows) + problem.stride, rows - 1)
    known = np.arange(rows) + problem.stride < rows
    fills = np.ones(rows, bool) if problem.tradable is None else problem.tradable[after] | ~known
    reward = problem.returns[:, None] * grid
    if config.risk_aversion > 0.0:
        reward -= 0.5 * config.risk_aversion * problem.variance[:, None] * grid**2
    if problem.holding_cost is not None:
        reward -= problem.holding_cost
    if problem.before_fill is not None:
        reward += config.gamma * np.where(known[:, None], problem.before_fill[after], 0.0)
    table = np.empty((rows, config.positions + 1))
    entropy = config.alpha * np.log(config.positions)
    table[:, :-1] = scale * reward - config.gamma * entropy * fills[:, None]
    step = scale * (grid[1] - grid[0]) / config.alpha
    table[:, -1] = np.where(fills, problem.cost[after] * step, np.inf)
    return table
