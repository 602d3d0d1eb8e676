"""The records that the bar engine reads and writes: a name, a unit and a meaning for every number.

A record is a class whose annotated fields make a numpy dtype. One record is read as `account.cash`, in compiled
code too; a column of a table as `bars["close"]`. Every field is a float64, so a table is also a plain matrix
(`to_matrix`), which is what state files hold. The order of the fields is that of the files.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    Records = NDArray[np.void]


class Record(np.void):
    """One row of a table, its fields as attributes; a row taken from a table is a view of it."""

    if not TYPE_CHECKING:  # a type checker sees the declared fields alone

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            try:
                return self[name]
            except ValueError:
                raise AttributeError(name) from None

        def __setattr__(self, name: str, value: float) -> None:
            self[name] = value


class Bar(Record):
    """One bar, with what the clock and the past determine; computed before any step."""

    open: float
    high: float
    low: float
    close: float  # prices of the bars' own side: bid, ask or mid
    spread_open: float  # full spread at the open, fraction of price
    spread_close: float  # full spread at the close, fraction of price
    nights_gap: float  # swap nights between the last close and this open
    nights_bar: float  # swap nights inside this bar
    tradable: float  # 1 if exposure may change at this open
    trading_day: float  # number of the day that the close belongs to; of FX from 17:00 to 17:00 New York
    volatility: float  # EWMA standard deviation of one-bar returns at the close, fraction
    cap_share: float  # exposure at |action| = 1 over the cap, in (0, 1], from what is known at the close
    return_forecast: float  # log return of mid a bar, for a decision made at this close


class Minute(Record):
    """One minute of a bar, prices of the bars' side; NaN if the minute has no bar.

    All are NaN if the minutes do not make up the bar; otherwise the first one is finite.
    """

    open: float
    high: float
    low: float


class Terms(Record):
    """What the account trades under: fractions of notional, price or equity unless stated otherwise."""

    price_side: float  # +1 bid bars, -1 ask bars, 0 mid bars
    exposure_cap: float  # exposure at |action| = 1 and share 1, notional over equity
    commission: float  # a side, of notional
    commission_per_unit: float  # a side, account currency a unit
    slippage: float  # a side, of price
    swap_long: float  # paid a rollover, of notional
    swap_short: float
    stop_loss: float  # distance from the entry price; 0 is off
    take_profit: float  # distance from the entry price; 0 is off
    close_out_margin: float  # forced flat when equity < this x notional
    interval_bars: float  # bars per decision
    close_at_end: float  # 1: flat at cost on the last bar
    bars_per_day: float  # in the day that profit and impact are measured in
    days_a_year: float  # trading days, for annual figures
    impact: float  # slippage on top, in daily volatilities, per root of the units traded; 0 is off
    daily_loss_limit: float  # of equity, `risk_limits`; 0 is off
    drawdown_stop: float  # of equity, `risk_limits`; 0 is off
    kill_loss: float  # of equity, `risk_limits`; 0 is off
    drawdown_pause_days: float  # calendar days flat after a drawdown stop
    reward: float  # a `Reward`
    risk_aversion: float  # lambda of the mean-variance reward
    sharpe_rate: float  # eta of the differential Sharpe ratio
    no_trade_band: float  # a target nearer than this to the last one filled is ignored
    observes_target: float  # 1: of the account, only the last filled target is observed


class Account(Record):
    """The state of one account; money in the account currency, which is the quote currency."""

    t: float  # index of the last closed bar
    bars_left: float  # until truncation
    cash: float
    units: float  # base currency held, long positive
    entry_price: float  # mean fill price of the position
    equity: float  # cash + units at the price that would close the position
    start_equity: float
    peak_equity: float
    max_drawdown: float  # fraction of the peak, in [0, 1]
    bars_held: float  # since the position was opened or turned
    spread_paid: float  # so far, like the next three
    commission_paid: float
    slippage_paid: float  # with market impact
    swap_paid: float
    turnover: float  # sum of |exposure change|, in equities
    trades: float  # fills
    day_equity: float  # at the start of the trading day
    days: float  # finished trading days; Welford's mean and sum of squares follow
    daily_return_mean: float
    daily_return_m2: float
    terminated: float  # 1 after ruin
    truncated: float  # 1 at the end of the bars or of the horizon
    close_outs: float  # forced by margin
    target: float  # last one filled, in [-1, 1]; an unchanged target is held, not rebalanced
    halted_until: float  # trading day; inf never ends
    limit_peak: float  # peak equity from which the drawdown stop measures
    reward_mean: float  # running mean of R, for the differential Sharpe ratio
    reward_square: float  # running mean of R squared


class AccountReport(NamedTuple):
    """What `engine.report` returns; money in the account currency."""

    t: float  # index of the last closed bar
    equity: float
    position: float  # notional over equity, long positive
    costs: float  # paid so far, the sum of the four kinds
    total_return: float  # equity over its start, less 1
    sharpe_ann: float  # annualised, from finished trading days; NaN below 20
    max_drawdown: float  # fraction of the peak, in [0, 1]
    spread_paid: float
    commission_paid: float
    slippage_paid: float
    swap_paid: float
    turnover: float
    trades: float
    close_outs: float
    halted: float  # 1 while the account must be flat
    terminated: float
    truncated: float
    reward: float  # of the step; 0 at a reset


class Trace(Record):
    """What a run keeps of each decision."""

    t: float  # index of the last closed bar
    equity: float  # account currency
    exposure: float  # notional over equity, long positive
    costs: float  # paid so far, account currency
    target: float  # decided on, in [-1, 1]


class Fill(Record):
    """One fill of an account; money in the account currency."""

    t: float  # index of the bar
    place: float  # 0 at its open, 1 inside it (stop, limit, margin), 2 at its close
    units: float  # traded, base currency, positive bought
    price: float  # paid, with half spread and slippage
    cost: float  # spread, slippage and commission of this fill
    position: float  # units held after it
    closed: float  # units of an open position that it closed, positive
    profit: float  # of the closed part, after all its costs: spread, slippage, commission, swap
    bars_held: float  # since that position was opened or reversed; 0 if nothing was closed


class Reward(IntEnum):
    """What `engine.step` returns; R is the change of log equity over the decision.

    LOG_RETURN: R. MEAN_VARIANCE: R - lambda / 2 R^2. DIFFERENTIAL_SHARPE: see `engine.differential_sharpe`.
    DENOISED: R with each bar's market profit replaced by its forecast, see `engine.step`.
    """

    LOG_RETURN, MEAN_VARIANCE, DIFFERENTIAL_SHARPE, DENOISED = 0, 1, 2, 3


PRICES = ("open", "high", "low", "close")
"""The price fields of a `Bar`."""

COSTS = ("spread", "commission", "slippage", "swap")
"""What an account pays; `Account` and `AccountReport` have `<kind>_paid` of each."""


def _dtype(kind: type) -> np.dtype[np.void]:
    fields = [(name, np.float64) for name in kind.__annotations__]
    # A report is read as a tuple, the others as records.
    return np.dtype((kind, fields) if issubclass(kind, Record) else fields)


BAR_DTYPE, MINUTE_DTYPE, TERMS_DTYPE = _dtype(Bar), _dtype(Minute), _dtype(Terms)
ACCOUNT_DTYPE, REPORT_DTYPE, TRACE_DTYPE = _dtype(Account), _dtype(AccountReport), _dtype(Trace)
FILL_DTYPE = _dtype(Fill)

_DTYPES: dict[type, np.dtype[np.void]] = {
    Bar: BAR_DTYPE,
    Minute: MINUTE_DTYPE,
    Terms: TERMS_DTYPE,
    Account: ACCOUNT_DTYPE,
    Trace: TRACE_DTYPE,
    Fill: FILL_DTYPE,
}
"""One dtype object per record: compiled code knows it by identity and compares others field by field."""

_R = TypeVar("_R", bound=Record)


def blank(kind: type[_R]) -> _R:
    """Return a record of zeros."""
    record: _R = np.zeros(1, _DTYPES[kind])[0]
    return record


def new_table(kind: type[Record], n: int) -> Records:
    """Return `n` records of zeros."""
    return np.zeros(n, _DTYPES[kind])


def one_row(record: Record) -> Records:
    """Return a copy of a record as a table of one row."""
    return np.array([record], _DTYPES[type(record)])


def join(tables: Sequence[Records]) -> Records:
    """Return concatenated tables of one kind; numpy's own `concatenate` loses the kind."""
    return np.concatenate(tables).view(tables[0].dtype)


def to_matrix(table: Records) -> FloatArray:
    """Return a copy of a table as plain numbers, shape (n, fields)."""
    matrix: FloatArray = np.array(table).view(np.float64).reshape(len(table), -1)
    return matrix


def flat(table: Records) -> FloatArray:
    """Return a table's own numbers, row after row: a view, shape (n x fields,), or (n, m x fields) of a table (n, m).

    A call from Python takes in plain numbers in a third of the time that it needs for records; compiled code views
    them as records again.
    """
    return table.view(np.float64)


def to_table(matrix: FloatArray, kind: type[Record]) -> Records:
    """Return a copy of `to_matrix`'s matrix as records, shape (n,).

    Raises
    ------
    ValueError
        If the number of columns is not that of the record's fields.
    """
    width = len(kind.__annotations__)
    if matrix.ndim != 2 or matrix.shape[1] != width:
        msg = f"{kind.__name__} has {width} fields, got a matrix of shape {matrix.shape}"
        raise ValueError(msg)
    table: Records = np.array(matrix, np.float64, order="C").view(_DTYPES[kind])[:, 0]
    return table
