"""Thirty causal, dimensionless features of up to ten instruments, scaled on train rows only.

Row t uses bars <= t and is meant to be read at the close of t; nothing is shifted. Horizons are minutes:
one shorter than the bar is dropped, and names carry minutes, hours or days, never bars. Indicators run on
gap-free log paths: across a hole in the bars a path continues at the next open, so that no return spans a
weekend silently. The traded instrument gives the rows; another one's last bar is carried where it has
none, so that its pauses delete nothing.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from sac_kernel.core import files
from sac_kernel.core.config import difference
from sac_kernel.core.errors import CheckpointError, DataError
from sac_kernel.core.renamed import renamed_arguments
from sac_kernel.features import forecast_input, indicators
from sac_kernel.features.forecast_input import ForecastInput
from sac_kernel.features.indicators import LogPath, Memory, ewma_volatility, log_path
from sac_kernel.features.regimes import RegimeDetector
from sac_kernel.prices.bars import PRICE_COLUMNS, check_bars, infer_bar_seconds, open_seconds
from sac_kernel.prices.clocks import unix_seconds, utc_offsets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sac_kernel.prices.bars import BarsByInstrument

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]
    Columns: TypeAlias = Iterator[tuple[str, FloatArray]]
    Reader = Callable[[str], tuple[IntArray, FloatArray, FloatArray]]

logger = logging.getLogger(__name__)

CLIP = 5.0
"""Scaled features end here: prices are never clipped, their features are."""

RETURN_HORIZONS_MIN = {"5m": 5, "1h": 60, "4h": 240, "1d": 1440}
WARMUP_MIN = 2 * 1440
"""The first two trading days have no features: the day-long averages are still filling."""

DOLLAR_WEIGHTS = {
    "EURUSD": -0.576, "USDJPY": 0.136, "GBPUSD": -0.119, "USDCAD": 0.091, "USDSEK": 0.042, "USDCHF": 0.036,
}  # fmt: skip
"""Exponents of the ICE US dollar index. The traded pair is left out: EURUSD is 57.6 % of the index, so the
whole one's return is nearly minus EURUSD's. The rest is renormalised to the members present."""

MIN_DOLLAR_MEMBERS = 3
CROSSES = ("EURGBP", "EURJPY", "USDJPY", "USDCHF", "USDCAD", "USDSEK")
RISKS = ("SPXUSD", "XAUUSD")
INSTRUMENTS = tuple(dict.fromkeys((*DOLLAR_WEIGHTS, *CROSSES, *RISKS)))
"""All that features are made of: ten."""

MEMORY_S = 7 * 86_400
"""No feature remembers more than this: the gap between rows that must share nothing."""

REGIME_FEATURE = "regime_high_vol_prob"

_MIN_COVERAGE = 0.5  # of the traded instrument's bars in each split
_PAUSE_SHARE = 0.02  # an instrument without a bar in more of the train rows than this has an age
_MAX_FEATURES = 40
_MINUTES_PER_DAY = 1440
_LOG_FLOOR = 1e-9
_HOUR_S = 3600
_HOUR, _WEEK = (
    (np.sin(angle), np.cos(angle))
    for angle in (
        2 * np.pi * np.arange(_MINUTES_PER_DAY) / _MINUTES_PER_DAY,
        2 * np.pi * np.minimum(np.arange(7), 4) / 5,
    )
)
_SESSIONS = {  # local trading hours, in minutes of the local day
    "tokyo_open": ("Asia/Tokyo", 9 * 60, 18 * 60),
    "london_open": ("Europe/London", 8 * 60, 16 * 60 + 30),
    "new_york_open": ("America/New_York", 8 * 60, 17 * 60),
}


@dataclass(frozen=True)
class Panel:
    """Which other instruments give features.

    Attributes
    ----------
    instruments : used beside the traded one
    dollar_members : pairs of the dollar index, at least `MIN_DOLLAR_MEMBERS` or none
    with_age : those that pause while the traded one trades; each has an age feature
    """

    instruments: tuple[str, ...] = ()
    dollar_members: tuple[str, ...] = ()
    with_age: tuple[str, ...] = ()

    @classmethod
    def choose(cls, coverage: Mapping[str, float], traded: str) -> Panel:
        """Return the panel of instruments whose shares of the traded one's train rows are given."""
        others = [name for name in INSTRUMENTS if name in coverage and name != traded]
        members = tuple(name for name in DOLLAR_WEIGHTS if name in others)
        members = members if len(members) >= MIN_DOLLAR_MEMBERS else ()
        used = tuple(name for name in others if name in (*members, *CROSSES, *RISKS))
        paused = tuple(name for name in used if coverage[name] < 1.0 - _PAUSE_SHARE)
        return cls(used, members, paused)

    def dollar_weights(self) -> dict[str, float]:
        """Return the weight of each member, renormalised: their sizes add to one."""
        total = sum(abs(DOLLAR_WEIGHTS[name]) for name in self.dollar_members)
        return {name: DOLLAR_WEIGHTS[name] / total for name in self.dollar_members}


@renamed_arguments(auxiliary="forecast")
class FeaturePipeline:
    """Bars of three splits in, scaled float32 features out.

    Attributes
    ----------
    instrument : the traded instrument; its bars give the index
    regimes : append `regime_high_vol_prob`, the filtered probability of the state of high volatility
    forecast : append `return_forecast`, the forecast of the next return by the other features, in standard
        deviations of it (`features.forecast_input`)
    feature_names : column order, known after the first run
    panel : the other instruments that give features, known after the first run
    left_out : instrument -> why it gives none, of the last run
    """

    def __init__(self, instrument: str = "EURUSD", regimes: bool = False, forecast: bool = False) -> None:
        self.instrument = instrument
        self.regimes, self.forecast = regimes, forecast
        self.bar_seconds = 0
        self.feature_names: list[str] = []
        self.panel = Panel()
        self.left_out: dict[str, str] = {}
        self.detector: RegimeDetector | None = None
        self.task: ForecastInput | None = None
        self._mean = np.zeros(0)
        self._std = np.zeros(0)
        self._fitted = False

    def run_full_pipeline(
        self, train: BarsByInstrument, val: BarsByInstrument, test: BarsByInstrument
    ) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return the features of each split on the instrument's index, in feature order (`run_splits`)."""
        frames = self.run_splits({"train": train, "val": val, "test": test})
        return frames["train"], frames["val"], frames["test"]

    def run_splits(self, splits: Mapping[str, BarsByInstrument]) -> dict[str, pd.DataFrame]:
        """Return the features of each of some stretches of bars, which follow each other in time.

        The features are computed once over all bars in time order, which is safe because they are causal,
        so a bar has the same features whichever split it is in. The scaler, the choice of instruments and
        the regime model are fitted on the rows of the first, unless this pipeline is fitted already. Rows of
        the warm-up (of the first) are NaN.
        """
        first = next(iter(splits))
        own = [self._bars_of(part, name) for name, part in splits.items()]
        bars = pd.concat(own)
        _check(bars, f"feature_engineering: {', '.join(splits)} together")
        bar_seconds = infer_bar_seconds(own[0], f"feature_engineering: {first}")
        warmup, n_train = warmup_bars(bar_seconds), len(own[0])
        if warmup >= n_train:
            msg = (
                f"feature_engineering: more {first} bars than the warm-up of {warmup} are required, "
                f"found {n_train}; give more bars"
            )
            raise DataError(msg)
        if self._fitted:
            self._check_same_instruments(splits, bar_seconds)
        else:
            self.bar_seconds, self.detector = bar_seconds, None
            coverage, self.left_out = _coverage(splits, self.instrument)
            self.panel = Panel.choose(coverage, self.instrument)
            reasons: dict[str, list[str]] = {}
            for name, why in self.left_out.items():
                reasons.setdefault(why, []).append(name)
            if reasons:
                shown = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
                logger.info("features: none of %s", shown)
            if self.regimes:
                self.detector = RegimeDetector.fit(bars.iloc[warmup:n_train], bar_seconds)

        def read(name: str) -> tuple[IntArray, FloatArray, FloatArray]:
            return _joined([part[name] for part in splits.values()], name)

        fit_rows = None if self._fitted else slice(warmup, n_train)
        scaled = self._scale(self._columns(bars, bar_seconds, read), len(bars), fit_rows)
        scaled[:, :warmup] = np.nan
        if self.forecast:
            if not self._fitted:
                self.task = ForecastInput.fit(
                    scaled[:-1, fit_rows].T,
                    forecast_input.next_returns(own[0], bar_seconds)[fit_rows],
                    open_seconds(own[0])[fit_rows],
                    purge=MEMORY_S // bar_seconds,
                )
            self._predict(scaled, bars, warmup)
        frame = pd.DataFrame(scaled.T, index=bars.index, columns=self.feature_names, copy=False)
        ends = np.cumsum([len(part) for part in own])
        return {
            name: frame.iloc[end - len(part) : end] for name, part, end in zip(splits, own, ends, strict=True)
        }

    def compute(self, bars: pd.DataFrame | BarsByInstrument) -> pd.DataFrame:
        """Return the unscaled features of one stretch of bars, warm-up rows included.

        `bars` are the traded instrument's, or a dict with those of the others too. Before a run the other
        instruments are chosen from `bars`; after one they are those of the run.
        """
        given = {self.instrument: bars} if isinstance(bars, pd.DataFrame) else bars
        own = self._bars_of(given, "bars")
        seconds = self.bar_seconds or infer_bar_seconds(own, "feature_engineering")
        if not self._fitted and not self.feature_names:
            self.panel = Panel.choose(_coverage({"bars": given}, self.instrument)[0], self.instrument)
        missing = [name for name in self.panel.instruments if name not in given]
        if missing:
            msg = (
                f"feature_engineering.compute: bars of {', '.join(missing)} are required, found "
                f"{', '.join(given)}; pass a dict of all instruments of the run"
            )
            raise DataError(msg)
        columns = self._columns(own, seconds, lambda name: _joined([given[name]], name))
        frame = pd.DataFrame(dict(columns), index=own.index)
        if self.task is not None:
            scaled = self._scale(((str(k), frame[k].to_numpy()) for k in frame), len(frame), None)
            self._predict(scaled, own, 0)
            frame[forecast_input.FEATURE] = scaled[-1]
        return frame

    def extend(self, bars: BarsByInstrument, memory: Memory) -> NDArray[np.float32]:
        """Return the scaled features of bars that follow those of earlier calls, shape (n_bars, n_features).

        Bit for bit the rows of one `run_full_pipeline` over all of these bars, whatever the stretches, but
        that the warm-up is not blanked. Bars of the other instruments may come with their own times; those
        after the last bar of the traded one wait for the next call.

        Parameters
        ----------
        bars : of the traded instrument (at least one) and of those of the panel (any number)
        memory : the same for all calls, new for the first; a call that raises leaves it unusable
        """
        if not self._fitted:
            msg = "feature_engineering.extend: a fitted pipeline is required, found a new one; use from_checkpoint"
            raise CheckpointError(msg)
        memory.rewind()
        own = self._bars_of(bars, "bars")
        _check(own, "feature_engineering.extend")
        columns = self._columns(own, self.bar_seconds, lambda name: _joined([bars[name]], name), memory)
        scaled = self._scale(columns, len(own), None)
        if self.forecast:
            self._predict(scaled, own, 0)
        return np.ascontiguousarray(scaled.T)

    @property
    def scaler(self) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of each feature in training, shape (n_features,)."""
        return self._mean.copy(), self._std.copy()

    def unscaled(self, column: int, value: float) -> float:
        """Return what a scaled feature was before; one at the clip was at least that far out."""
        return float(value * self._std[column] + self._mean[column])

    def state(self) -> dict[str, Any]:
        """Return what inference needs to make the same features again, as plain values."""
        return {
            "instrument": self.instrument,
            "bar_seconds": self.bar_seconds,
            "names": list(self.feature_names),
            "mean": self._mean.tolist(),
            "std": self._std.tolist(),
            "clip": CLIP,
            "panel": {name: list(value) for name, value in asdict(self.panel).items()},
            "regimes": self.detector.state() if self.detector else None,
            "forecast": self.task.state() if self.task else None,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FeaturePipeline:
        """Return a fitted pipeline that never refits."""
        regimes, task = state.get("regimes"), state.get("forecast", state.get("auxiliary"))
        pipeline = cls(str(state["instrument"]), regimes=regimes is not None, forecast=task is not None)
        pipeline.bar_seconds = int(state["bar_seconds"])
        pipeline.feature_names = [
            forecast_input.FEATURE if name == "expected_return" else str(name) for name in state["names"]
        ]
        pipeline.panel = Panel(**{k: tuple(v) for k, v in state.get("panel", {}).items()})
        pipeline.detector = RegimeDetector.from_state(regimes) if regimes is not None else None
        pipeline.task = ForecastInput.from_state(task) if task is not None else None
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

    def _bars_of(self, split: BarsByInstrument, name: str) -> pd.DataFrame:
        if self.instrument not in split:
            msg = (
                f"feature_engineering: instrument {self.instrument} is required in {name}, "
                f"found {', '.join(sorted(split)) or 'none'}; pass FeaturePipeline(instrument=...)"
            )
            raise DataError(msg)
        return split[self.instrument]

    def _columns(
        self, bars: pd.DataFrame, bar_seconds: int, read: Reader, memory: Memory | None = None
    ) -> Columns:
        memory = memory or Memory()
        yield from _columns(bars, bar_seconds, self.instrument, self.panel, read, memory)
        if self.detector is not None:
            yield REGIME_FEATURE, self.detector.high_vol_prob(bars, bar_seconds, memory)

    def _predict(self, scaled: NDArray[np.float32], bars: pd.DataFrame, warmup: int) -> None:
        """Write the forecast's column, clipped as the others are, into the last row of `scaled`."""
        assert self.task is not None
        column = self.task.column(scaled[:-1, warmup:].T, open_seconds(bars)[warmup:])
        np.clip(column, -CLIP, CLIP, out=scaled[-1, warmup:], casting="same_kind")

    def _scale(self, columns: Columns, n: int, fit_rows: slice | None) -> NDArray[np.float32]:
        """Return the scaled features, shape (n_features, n), the last row free for the forecast, if any.

        The scaler is fitted on `fit_rows` on the way; None takes the one that is there.
        """
        out = np.empty((_MAX_FEATURES, n), np.float32)
        means, stds, names = [], [], []
        for i, (name, values) in enumerate(columns):
            if fit_rows is None and i < len(self._mean):
                mean, std = float(self._mean[i]), float(self._std[i])
            else:
                part = values[fit_rows] if fit_rows else values
                mean, std = float(part.mean()), float(part.std())
                std = std if std > _LOG_FLOOR else 1.0  # a constant feature stays, as zero
            indicators.scale_into(values, mean, std, CLIP, out[i])
            means.append(mean)
            stds.append(std)
            names.append(name)
        if fit_rows is None:
            self._check_same({"features": names}, {"features": self.feature_names[: len(self._mean)]})
        else:
            self._mean, self._std = np.asarray(means), np.asarray(stds)
            self.feature_names = [*names, forecast_input.FEATURE] if self.forecast else names
        return out[: len(names) + self.forecast]

    def _check_same_instruments(self, splits: Mapping[str, BarsByInstrument], bar_seconds: int) -> None:
        have = [name for name in self.panel.instruments if all(name in part for part in splits.values())]
        self._check_same(
            {"bar_seconds": bar_seconds, "instruments": have},
            {"bar_seconds": self.bar_seconds, "instruments": list(self.panel.instruments)},
        )

    def _check_same(self, here: dict[str, Any], saved: dict[str, Any]) -> None:
        lines = difference(saved, here)
        if lines:
            msg = (
                f"feature_engineering: the features the scaler was fitted on are required; {'; '.join(lines)}; "
                "use bars of the same size and instruments as in training"
            )
            raise CheckpointError(msg)


def warmup_bars(bar_seconds: int) -> int:
    """Return the number of first bars without features: two trading days."""
    return -(-WARMUP_MIN * 60 // bar_seconds)


def compute_features(
    bars: pd.DataFrame, bar_seconds: int, instrument: str, others: BarsByInstrument | None = None
) -> pd.DataFrame:
    """Return the unscaled features, shape (n_bars, n_features), float64, in feature order.

    Row t is a function of bars <= t, of `bars` and of the other instruments. Early rows use what there is;
    `warmup_bars` says how many to drop.
    """
    given = {**(others or {}), instrument: bars}
    panel = Panel.choose(_coverage({"bars": given}, instrument)[0], instrument)
    columns = _columns(
        bars, bar_seconds, instrument, panel, lambda name: _joined([given[name]], name), Memory()
    )
    return pd.DataFrame(dict(columns), index=bars.index)


def _columns(
    bars: pd.DataFrame, bar_seconds: int, instrument: str, panel: Panel, read: Reader, memory: Memory
) -> Columns:
    """Yield name and values of each feature in order; one at a time, so that memory stays bounded."""
    path = log_path(bars, bar_seconds, memory)
    for name, values in direct_features(path, bar_seconds, memory):
        yield f"{instrument.lower()}_{name}", values
    close = path.close
    del path
    at = open_seconds(bars)
    paths: dict[str, FloatArray] = {}
    ages: dict[str, IntArray] = {}
    for name in panel.instruments:
        paths[name], age = indicators.carried_path(*read(name), bar_seconds, at, memory)
        if name in panel.with_age:
            ages[name] = age
    if panel.dollar_members:
        index = sum(weight * paths[name] for name, weight in panel.dollar_weights().items())
        yield from dollar_features(index, close, bar_seconds, memory)  # type: ignore[arg-type]  # an array
    hour, hours4, day = (_bars_in(minutes, bar_seconds) for minutes in (60, 240, 1440))
    for name in CROSSES:
        if name in paths:
            residual = indicators.scaled_residual(close, paths[name], hour, day, memory)
            yield f"{name.lower()}_residual_1h", residual
    for name in RISKS:
        if name in paths:
            sigma = ewma_volatility(indicators.steps(paths[name], memory), day, memory)
            yield f"{name.lower()}_return_4h", indicators.scaled_change(paths[name], sigma, hours4, memory)
    yield from time_features(bars.index, bar_seconds).items()  # type: ignore[arg-type]  # a DatetimeIndex
    for name, age in ages.items():
        yield f"{name.lower()}_age", np.log1p(age / _HOUR_S)


def direct_features(path: LogPath, bar_seconds: int, memory: Memory | None = None) -> Columns:
    """Yield up to ten features of the traded instrument's log path, each dimensionless; shape (n,) each.

    sigma is the EWMA volatility of one-bar returns with a half-life of one day.
    """
    hour, hours4, day = (_bars_in(minutes, bar_seconds) for minutes in (60, 240, 1440))
    sigma = ewma_volatility(path.bar_return, day, memory)
    for name, minutes in RETURN_HORIZONS_MIN.items():
        if minutes * 60 >= bar_seconds:
            n = _bars_in(minutes, bar_seconds)
            yield f"return_{name}", indicators.scaled_change(path.close, sigma, n, memory)
    yield "rsi_4h", indicators.rsi(path.close, hours4, memory) / 50.0 - 1.0
    yield "macd_4h", indicators.macd_histogram(path.close, hours4, memory) / (sigma * np.sqrt(hours4))
    short, long = (indicators.atr(path, n, memory) for n in (hours4, day))
    yield "atr_ratio_4h_1d", np.log((short + _LOG_FLOOR) / (long + _LOG_FLOOR))
    parkinson = indicators.parkinson_volatility(path, hour, memory)
    yield "parkinson_1h", np.log((parkinson + _LOG_FLOOR) / (sigma + _LOG_FLOOR))
    yield "bollinger_4h", indicators.bollinger_position(path.close, hours4, memory)
    yield "adx_4h", indicators.adx(path, hours4, memory) / 50.0 - 1.0


def dollar_features(
    index: FloatArray, close: FloatArray, bar_seconds: int, memory: Memory | None = None
) -> Columns:
    """Yield five features of the log dollar index without the traded pair, whose log path is `close`.

    `dollar_residual_1h` is what the dollar did beyond its usual share in the traded pair's move: a lead.
    """
    hour, hours4, day = (_bars_in(minutes, bar_seconds) for minutes in (60, 240, 1440))
    step = indicators.steps(index, memory)
    short, sigma = (ewma_volatility(step, n, memory) for n in (hours4, day))
    yield "dollar_return_1h", indicators.scaled_change(index, sigma, hour, memory)
    yield "dollar_return_1d", indicators.scaled_change(index, sigma, day, memory)
    yield "dollar_rsi_4h", indicators.rsi(index, hours4, memory) / 50.0 - 1.0
    yield "dollar_volatility_ratio_4h_1d", np.log(short / sigma)
    yield "dollar_residual_1h", indicators.scaled_residual(close, index, hour, day, memory)


def time_features(open_time: pd.DatetimeIndex, bar_seconds: int) -> dict[str, FloatArray]:
    """Return seven features of the moment of decision (the bar's close), on local clocks with DST.

    Hour and weekday are New York's; the trading week runs from Sunday 17:00 to Friday 17:00. Sessions are
    1 while open, else 0, weekends aside.
    """
    closed = unix_seconds(open_time) + bar_seconds
    # One second earlier, Friday 17:00 still is Friday; seven hours later, 17:00 is midnight.
    minute, trading_day = indicators.clock_of(
        closed, utc_offsets(closed, "America/New_York"), 7 * _HOUR_S - 1
    )
    features = {
        "hour_sin": _HOUR[0][minute],
        "hour_cos": _HOUR[1][minute],
        "weekday_sin": _WEEK[0][trading_day],
        "weekday_cos": _WEEK[1][trading_day],
    }
    for name, (zone, start, end) in _SESSIONS.items():
        minute, weekday = indicators.clock_of(closed, utc_offsets(closed, zone), 0)
        is_open = (minute >= start) & (minute < end) & (weekday < 5)
        features[name] = is_open.astype(np.float64)
    return features


def _bars_in(minutes: int, bar_seconds: int) -> int:
    return max(1, round(minutes * 60 / bar_seconds))


def _coverage(splits: Mapping[str, BarsByInstrument], traded: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return the share of the traded one's first-split bars that each usable instrument has, and why not.

    An instrument is usable if it has at least half of the traded one's bars in every split.
    """
    shares: dict[str, float] = {}
    left_out: dict[str, str] = {}
    named = {name for part in splits.values() for name in part}
    for name in sorted((named | set(INSTRUMENTS)) - {traded}):
        absent = [split for split, part in splits.items() if name not in part]
        if name not in INSTRUMENTS:
            left_out[name] = "no feature is made of it"
        elif absent:
            left_out[name] = "absent" if len(absent) == len(splits) else f"not in {', '.join(absent)}"
        else:
            found = {split: _share(part[name], part[traded]) for split, part in splits.items()}
            thin = [f"{share:.0%} of {split}" for split, share in found.items() if share < _MIN_COVERAGE]
            if thin:
                left_out[name] = f"bars in only {', '.join(thin)}"
            else:
                shares[name] = next(iter(found.values()))
    return shares, left_out


def _share(bars: pd.DataFrame, traded: pd.DataFrame) -> float:
    if bars.index.equals(traded.index):
        return 1.0
    times, at = open_seconds(bars), open_seconds(traded)
    if times.size == 0:
        return 0.0
    place = np.minimum(np.searchsorted(times, at), times.size - 1)
    return float(np.mean(times[place] == at))


def _joined(parts: Sequence[pd.DataFrame], name: str) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return seconds, open and close of one instrument over all splits, checked."""
    times, each = [open_seconds(part) for part in parts], [indicators.price_columns(part) for part in parts]
    seconds, prices = times[0], each[0]
    if len(parts) > 1:
        seconds = np.concatenate(times)
        prices = [np.concatenate(column) for column in zip(*each, strict=True)]
    if not indicators.bars_are_sound(seconds, *prices):
        check_bars(pd.concat(parts), f"feature_engineering: {name}")
    return seconds, prices[0], prices[3]


def _check(bars: pd.DataFrame, where: str) -> None:
    """Raise as `check_bars` does; a table that is sound takes one compiled pass."""
    plain = isinstance(bars.index, pd.DatetimeIndex) and bars.index.tz is not None
    sound = (
        plain
        and {*PRICE_COLUMNS} <= {*bars.columns}
        and indicators.bars_are_sound(open_seconds(bars), *indicators.price_columns(bars))
    )
    if not sound:
        check_bars(bars, where)
