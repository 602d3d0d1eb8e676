"""Causal, dimensionless features of the bars, and the scaler fitted on train rows only.

Row t uses bars <= t and is meant to be read at the close of t; nothing is shifted. Horizons are minutes:
one shorter than the bar is dropped, and names carry minutes, hours or days, never bars. Indicators run on
a gap-free log path: across a hole in the bars the path continues at the next open, so that no return
spans a weekend silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
import pandas as pd

from sac_kernel import files
from sac_kernel.bar_formats import check_bars, infer_bar_seconds
from sac_kernel.config import difference
from sac_kernel.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.data_pipeline import Bars

    FloatArray = NDArray[np.float64]

CLIP = 5.0
"""Scaled features end here: prices are never clipped, their features are."""

RETURN_HORIZONS_MIN = {"5m": 5, "1h": 60, "4h": 240, "1d": 1440}
WARMUP_MIN = 2 * 1440
"""The first two trading days have no features: the day-long averages are still filling."""

_MINUTES_PER_DAY = 1440
_SIGMA_FLOOR = 1e-7
_LOG_FLOOR = 1e-9
_SESSIONS = {  # local trading hours, in minutes of the local day
    "tokyo_open": ("Asia/Tokyo", 9 * 60, 18 * 60),
    "london_open": ("Europe/London", 8 * 60, 16 * 60 + 30),
    "new_york_open": ("America/New_York", 8 * 60, 17 * 60),
}


@dataclass(frozen=True)
class LogPath:
    """High, low and close as log prices of a path without gaps, and its one-bar returns; shape (n,)."""

    high: FloatArray
    low: FloatArray
    close: FloatArray
    bar_return: FloatArray


class FeaturePipeline:
    """Bars of three splits in, scaled float32 features out.

    Attributes
    ----------
    instrument : the traded instrument; its bars give the index
    feature_names : column order, known after the first run
    """

    def __init__(self, instrument: str = "EURUSD") -> None:
        self.instrument = instrument
        self.bar_seconds = 0
        self.feature_names: list[str] = []
        self._mean = np.zeros(0)
        self._std = np.zeros(0)
        self._fitted = False

    def run_full_pipeline(
        self, train: Bars, val: Bars, test: Bars
    ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return the features of each split on the instrument's index, in feature order.

        The features are computed once over all bars in time order, which is safe because they are causal,
        so a bar has the same features whichever split it is in. The scaler is fitted on train rows, unless
        this pipeline came from a checkpoint. Rows of the warm-up (train only) are NaN.
        """
        splits = [
            self._bars_of(part, name) for part, name in ((train, "train"), (val, "val"), (test, "test"))
        ]
        bars = pd.concat(splits)
        check_bars(bars, "feature_engineering: train, val and test together")
        bar_seconds = infer_bar_seconds(splits[0], "feature_engineering: train")
        raw = compute_features(bars, bar_seconds, self.instrument)
        warmup = warmup_bars(bar_seconds)
        if warmup >= len(splits[0]):
            msg = (
                f"feature_engineering: more train bars than the warm-up of {warmup} are required, "
                f"found {len(splits[0])}; give more bars"
            )
            raise DataError(msg)
        raw.iloc[:warmup] = np.nan
        if self._fitted:
            self._check_same(list(raw.columns), bar_seconds)
        else:
            self._fit(raw.iloc[warmup : len(splits[0])], bar_seconds)
        scaled: pd.DataFrame = ((raw - self._mean) / self._std).clip(-CLIP, CLIP).astype(np.float32)  # type: ignore[assignment]  # a frame
        ends = np.cumsum([len(part) for part in splits])
        return scaled.iloc[: ends[0]], scaled.iloc[ends[0] : ends[1]], scaled.iloc[ends[1] :]

    def compute(self, bars: pd.DataFrame) -> pd.DataFrame:
        """Return the unscaled features of one table of bars, warm-up rows included."""
        seconds = self.bar_seconds or infer_bar_seconds(bars, "feature_engineering")
        return compute_features(bars, seconds, self.instrument)

    def state(self) -> dict[str, Any]:
        """Return what inference needs to make the same features again, as plain values."""
        return {
            "instrument": self.instrument,
            "bar_seconds": self.bar_seconds,
            "names": list(self.feature_names),
            "mean": self._mean.tolist(),
            "std": self._std.tolist(),
            "clip": CLIP,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FeaturePipeline:
        """Return a fitted pipeline that never refits."""
        pipeline = cls(str(state["instrument"]))
        pipeline.bar_seconds = int(state["bar_seconds"])
        pipeline.feature_names = [str(name) for name in state["names"]]
        pipeline._mean = np.asarray(state["mean"], np.float64)
        pipeline._std = np.asarray(state["std"], np.float64)
        pipeline._fitted = True
        return pipeline

    @classmethod
    def from_checkpoint(cls, path: Path) -> FeaturePipeline:
        """Return the fitted pipeline stored in an agent's `.pt`; it never refits."""
        content = files.read_pt(path)
        if "features" not in content:
            msg = f"{path}: a saved agent with its features is required, found {', '.join(map(str, content))}"
            raise CheckpointError(msg)
        return cls.from_state(content["features"])

    def _bars_of(self, split: Bars, name: str) -> pd.DataFrame:
        if self.instrument not in split:
            msg = (
                f"feature_engineering: instrument {self.instrument} is required in {name}, "
                f"found {', '.join(sorted(split)) or 'none'}; pass FeaturePipeline(instrument=...)"
            )
            raise DataError(msg)
        return split[self.instrument]

    def _fit(self, rows: pd.DataFrame, bar_seconds: int) -> None:
        self.bar_seconds = bar_seconds
        self.feature_names = list(rows.columns)
        self._mean = rows.mean().to_numpy(np.float64)
        std = rows.std(ddof=0).to_numpy(np.float64)
        self._std = np.where(std > _LOG_FLOOR, std, 1.0)  # a constant feature stays, as zero

    def _check_same(self, names: list[str], bar_seconds: int) -> None:
        lines = difference(
            {"features": self.feature_names, "bar_seconds": self.bar_seconds},
            {"features": names, "bar_seconds": bar_seconds},
        )
        if lines:
            msg = (
                f"feature_engineering: the features the scaler was fitted on are required; {'; '.join(lines)}; "
                "use bars of the same size and instruments as in training"
            )
            raise CheckpointError(msg)


def assert_causal(pipeline: Any, bars: pd.DataFrame, rows: int = 20, seed: int = 0) -> int:  # noqa: ANN401
    """Check that features of row t are a function of bars <= t, bit for bit; return the rows checked.

    Each random row is recomputed from its own past alone, and once more with every later price doubled.

    Parameters
    ----------
    pipeline : anything with `compute(bars) -> DataFrame` on the bars' index
    bars : DataFrame of bars; the first 20,000 are used

    Raises
    ------
    DataError
        Naming the feature and the row that changed.
    """
    bars = bars.iloc[:20_000]
    full = pipeline.compute(bars)
    rng = np.random.default_rng(seed)
    for t in rng.integers(2, len(bars) - 1, size=rows):
        edited = bars.copy()
        edited.iloc[t + 1 :] *= 2.0
        for what, other in (("shortened", bars.iloc[: t + 1]), ("edited", edited)):
            here, there = full.iloc[t], pipeline.compute(other).iloc[t]
            wrong = [str(c) for c in full.columns if not np.array_equal(here[c], there[c], equal_nan=True)]
            if wrong:
                msg = (
                    f"feature_engineering.assert_causal: row {t} ({bars.index[t]}) must not depend on later bars, "
                    f"found that {', '.join(wrong[:3])} changed when the future was {what}"
                )
                raise DataError(msg)
    return rows


def warmup_bars(bar_seconds: int) -> int:
    """Return the number of first bars without features: two trading days."""
    return -(-WARMUP_MIN * 60 // bar_seconds)


def compute_features(bars: pd.DataFrame, bar_seconds: int, instrument: str) -> pd.DataFrame:
    """Return the unscaled features, shape (n_bars, n_features), float64, in feature order.

    Row t is a function of bars <= t. Early rows use what there is; `warmup_bars` says how many to drop.
    """
    columns = {f"{instrument.lower()}_{k}": v for k, v in direct_features(bars, bar_seconds).items()}
    columns |= time_features(bars.index, bar_seconds)  # type: ignore[arg-type]  # a DatetimeIndex
    return pd.DataFrame(columns, index=bars.index)


def direct_features(bars: pd.DataFrame, bar_seconds: int) -> dict[str, FloatArray]:
    """Return up to ten features of one instrument's bars, each dimensionless; shape (n,) each.

    sigma is the EWMA volatility of one-bar returns with a half-life of one day.
    """
    path = log_path(bars, bar_seconds)
    sigma = ewma_volatility(path.bar_return, _bars_in(1440, bar_seconds))
    hours4, day = _bars_in(240, bar_seconds), _bars_in(1440, bar_seconds)
    features: dict[str, FloatArray] = {}
    for name, minutes in RETURN_HORIZONS_MIN.items():
        if minutes * 60 >= bar_seconds:
            n = _bars_in(minutes, bar_seconds)
            features[f"return_{name}"] = _change(path.close, n) / (sigma * np.sqrt(n))
    features["rsi_4h"] = rsi(path.close, hours4) / 50.0 - 1.0
    features["macd_4h"] = macd_histogram(path.close, hours4) / (sigma * np.sqrt(hours4))
    features["atr_ratio_4h_1d"] = np.log((atr(path, hours4) + _LOG_FLOOR) / (atr(path, day) + _LOG_FLOOR))
    park = parkinson_volatility(path, _bars_in(60, bar_seconds))
    features["parkinson_1h"] = np.log((park + _LOG_FLOOR) / (sigma + _LOG_FLOOR))
    features["bollinger_4h"] = bollinger_position(path.close, hours4)
    features["adx_4h"] = adx(path, hours4) / 50.0 - 1.0
    return features


def time_features(open_time: pd.DatetimeIndex, bar_seconds: int) -> dict[str, FloatArray]:
    """Return seven features of the moment of decision (the bar's close), on local clocks with DST.

    Hour and weekday are New York's; the trading week runs from Sunday 17:00 to Friday 17:00. Sessions are
    1 while open, else 0, weekends aside.
    """
    close_time = open_time + pd.Timedelta(seconds=bar_seconds)
    local = close_time.tz_convert("America/New_York")
    hour = 2 * np.pi * (local.hour * 60 + local.minute).to_numpy() / _MINUTES_PER_DAY
    # One second earlier, Friday 17:00 still is Friday; seven hours later, 17:00 is midnight.
    trading_day = (local - pd.Timedelta(seconds=1)).tz_localize(None) + pd.Timedelta(hours=7)
    week = 2 * np.pi * np.minimum(trading_day.dayofweek.to_numpy(), 4) / 5
    features = {
        "hour_sin": np.sin(hour),
        "hour_cos": np.cos(hour),
        "weekday_sin": np.sin(week),
        "weekday_cos": np.cos(week),
    }
    for name, (zone, start, end) in _SESSIONS.items():
        there = close_time.tz_convert(zone)
        minute = (there.hour * 60 + there.minute).to_numpy()
        is_open = (minute >= start) & (minute < end) & (there.dayofweek.to_numpy() < 5)
        features[name] = is_open.astype(np.float64)
    return features


def log_path(bars: pd.DataFrame, bar_seconds: int) -> LogPath:
    """Return the gap-free log path: after a hole it goes on from the next bar's open."""
    o, h, lo, c = (np.log(bars[k].to_numpy(np.float64)) for k in ("open", "high", "low", "close"))
    seconds = bars.index.as_unit("s").asi8  # type: ignore[attr-defined]  # a DatetimeIndex
    after_gap = np.diff(seconds, prepend=seconds[0] - 2 * bar_seconds) > bar_seconds
    bar_return = c - np.where(after_gap, o, np.concatenate((o[:1], c[:-1])))
    close = np.cumsum(bar_return)
    return LogPath(close + (h - c), close + (lo - c), close, bar_return)


def ewma_volatility(bar_return: FloatArray, half_life: int) -> FloatArray:
    """Return the root of the exponentially weighted mean square return, floored; weights sum to one."""
    square = pd.Series(bar_return**2).ewm(halflife=half_life, adjust=True).mean().to_numpy()
    return np.maximum(np.sqrt(square), _SIGMA_FLOOR)


def rsi(close: FloatArray, n: int) -> FloatArray:
    """Return Wilder's relative strength index over n bars, in [0, 100]; 50 before it exists or when flat."""
    change = np.diff(close)
    up, down = _wilder(np.maximum(change, 0.0), n), _wilder(np.maximum(-change, 0.0), n)
    total = up + down
    value = np.divide(100.0 * up, total, out=np.full_like(total, 50.0), where=total > 1e-14)
    return np.concatenate(([50.0], value))


def macd_histogram(close: FloatArray, n_fast: int) -> FloatArray:
    """Return MACD minus its signal with spans in the classic proportion 12 : 26 : 9 of `n_fast`."""
    fast, slow, signal = n_fast, max(2, round(n_fast * 26 / 12)), max(2, round(n_fast * 9 / 12))
    line = _ema(close, fast) - _ema(close, slow)
    return line - _ema(line, signal)


def atr(path: LogPath, n: int) -> FloatArray:
    """Return Wilder's average true range over n bars, in log price."""
    previous = path.close[:-1]
    true_range = np.maximum(path.high[1:], previous) - np.minimum(path.low[1:], previous)
    return np.concatenate(([path.high[0] - path.low[0]], _wilder(true_range, n)))


def parkinson_volatility(path: LogPath, n: int) -> FloatArray:
    """Return Parkinson's (1980) volatility per bar from the ranges of the last n bars."""
    square = (path.high - path.low) ** 2 / (4.0 * np.log(2.0))
    return np.sqrt(np.mean(_windows(square, n), axis=1))


def bollinger_position(close: FloatArray, n: int) -> FloatArray:
    """Return (close - mean) / (2 sd) over the last n bars; 0 where the window is flat."""
    window = _windows(close, n)
    sd = window.std(axis=1)
    deviation = close - window.mean(axis=1)
    return np.divide(deviation, 2.0 * sd, out=np.zeros_like(sd), where=sd > 1e-12)


def adx(path: LogPath, n: int) -> FloatArray:
    """Return Wilder's average directional index over n bars, in [0, 100]; 0 before it exists."""
    return np.asarray(_adx(path.high, path.low, path.close, n))


def _bars_in(minutes: int, bar_seconds: int) -> int:
    return max(1, round(minutes * 60 / bar_seconds))


def _change(close: FloatArray, n: int) -> FloatArray:
    change = np.empty_like(close)
    change[:n] = close[:n] - close[0]
    change[n:] = close[n:] - close[:-n]
    return change


def _ema(values: FloatArray, span: int) -> FloatArray:
    return np.asarray(pd.Series(values).ewm(span=span, adjust=False).mean().to_numpy())


def _windows(values: FloatArray, n: int) -> FloatArray:
    padded = np.concatenate((np.full(n - 1, values[0]), values))
    return np.lib.stride_tricks.sliding_window_view(padded, n)


@numba.njit(cache=True)
def _wilder(values: FloatArray, n: int) -> FloatArray:  # pragma: no cover  # compiled
    """Wilder's smoothing: the mean of the first n values, then avg += (x - avg) / n; running mean before."""
    out = np.empty_like(values)
    average = 0.0
    for i in range(values.size):
        weight = min(i + 1, n)
        average += (values[i] - average) / weight
        out[i] = average
    return out


@numba.njit(cache=True)
def _adx(high: FloatArray, low: FloatArray, close: FloatArray, n: int) -> FloatArray:  # pragma: no cover
    """Wilder 1978: smoothed +DM, -DM and true range -> DX -> its Wilder average, first over n values."""
    out = np.zeros(close.size)
    plus = minus = span = average = 0.0
    count = 0
    for i in range(1, close.size):
        up, down = high[i] - high[i - 1], low[i - 1] - low[i]
        plus_move = up if up > down and up > 0 else 0.0
        minus_move = down if down > up and down > 0 else 0.0
        true_range = max(high[i], close[i - 1]) - min(low[i], close[i - 1])
        if i < n:
            plus, minus, span = plus + plus_move, minus + minus_move, span + true_range
            continue
        plus += plus_move - plus / n
        minus += minus_move - minus / n
        span += true_range - span / n
        total = plus + minus
        if span > 1e-14 and total > 1e-14:
            dx = 100.0 * abs(plus - minus) / total
            count += 1
            average += (dx - average) / min(count, n)
        out[i] = average if count >= n else 0.0
    return out
