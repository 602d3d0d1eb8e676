"""Thirty causal, dimensionless features of up to ten instruments, scaled on train rows only.

Row t uses bars <= t and is to be read at the close of t; nothing is shifted. Horizons and feature names are in
minutes, hours or days, never bars; a horizon shorter than the bar is dropped. Indicators run on gap-free log
paths: after a hole in the bars a path continues at the next open, so no return spans a weekend. The traded
instrument gives the rows; where another instrument has no bar its last one is carried, so its pauses delete no row.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from sac_kernel.core import files
from sac_kernel.core.config import difference
from sac_kernel.core.errors import CheckpointError, DataError
from sac_kernel.core.renamed import renamed_arguments
from sac_kernel.features import forecast_input, indicators
from sac_kernel.features.columns import INSTRUMENTS, LOG_FLOOR, Panel, columns
from sac_kernel.features.forecast_input import ForecastInput
from sac_kernel.features.indicators import Memory
from sac_kernel.features.own import MAX_OWN, OwnFeatures, leading, loaded
from sac_kernel.features.regimes import RegimeDetector
from sac_kernel.features.series import loaded as loaded_series
from sac_kernel.prices.bars import PRICE_COLUMNS, check_bars, infer_bar_seconds, open_seconds, spec_for
from sac_kernel.prices.instruments import EURUSD, from_values

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
"""Scaled features are clipped here; prices never are."""

WARMUP_MIN = 2 * 1440
"""The first two trading days have no features: day-long averages are still filling."""

MEMORY_S = 7 * 86_400
"""Longest memory of a feature: the gap between rows that must share nothing."""

REGIME_FEATURE = "regime_high_vol_prob"

_MIN_COVERAGE = 0.5  # of the traded instrument's bars in each split
_MAX_FEATURES = 40


@renamed_arguments(auxiliary="forecast")
class FeaturePipeline:
    """Bars of three splits in, scaled float32 features out.

    Attributes
    ----------
    instrument : the traded instrument; its bars give the index
    regimes : append `regime_high_vol_prob`, the filtered probability of the state of high volatility
    forecast : append `return_forecast`, the forecast of the next return from the other features, in its
        standard deviations (`features.forecast_input`)
    spec : what the traded instrument costs and when it trades, that of the bars of the first run
    own, only_own : the user's own features, beside the thirty or instead of them
    feature_names : column order, known after the first run
    panel : the other instruments that give features, known after the first run
    left_out : instrument -> why it gives no features in the last run
    """

    def __init__(
        self,
        instrument: str = "EURUSD",
        regimes: bool = False,
        forecast: bool = False,
        own: OwnFeatures | None = None,
        only_own: bool = False,
    ) -> None:
        self.instrument = instrument
        self.regimes, self.forecast = regimes, forecast
        self.own, self.only_own = own, only_own
        self._own_state: dict[str, Any] | None = None
        self.bar_seconds, self.spec = 0, EURUSD
        self.feature_names: list[str] = []
        self.panel = Panel()
        self.left_out: dict[str, str] = {}
        self.detector: RegimeDetector | None = None
        self._forecast: ForecastInput | None = None
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
        """Return the features of splits that follow each other in time.

        The features are computed once over all bars in time order. This is safe because they are causal, and
        a bar has the same features whichever split it is in. The scaler, the choice of instruments and the
        regime model are fitted on the first split, unless this pipeline is fitted already. Warm-up rows (the
        first of the first split) are NaN.
        """
        first = next(iter(splits))
        own = [self._bars_of(part, name) for name, part in splits.items()]
        bars = pd.concat(own)
        _check(bars, f"{self.instrument} ({', '.join(splits)})")
        bar_seconds = infer_bar_seconds(own[0], f"{self.instrument} ({first})")
        warmup, n_train = warmup_bars(bar_seconds), len(own[0])
        if warmup >= n_train:
            msg = (
                f"The {n_train} bars of {self.instrument} in {first} do not exceed the warm-up of {warmup} bars. "
                "Pass more bars."
            )
            raise DataError(msg)
        if self._fitted:
            self._check_same_instruments(splits, bar_seconds)
        else:
            self.bar_seconds, self.spec, self.detector = bar_seconds, spec_for(own[0]), None
            coverage, self.left_out = _coverage(splits, self.instrument)
            self.panel = Panel.choose(coverage, self.instrument)
            reasons: dict[str, list[str]] = {}
            for name, why in self.left_out.items():
                reasons.setdefault(why, []).append(name)
            if reasons:
                text = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
                logger.info("Instruments left out of the features: %s", text)
            if self.regimes:
                self.detector = RegimeDetector.fit(bars.iloc[warmup:n_train], bar_seconds)

        def read(name: str) -> tuple[IntArray, FloatArray, FloatArray]:
            return _joined([part[name] for part in splits.values()], name)

        tables = {name: _together(splits, name) for name in _shared(splits)} if self.own else {}
        own_table = self._own_table(tables, bar_seconds)
        warmup = max(warmup, _first_row(own_table, n_train))
        fit_rows = None if self._fitted else slice(warmup, n_train)
        scaled = self._scale(self._columns(bars, bar_seconds, read, own_table), len(bars), fit_rows)
        scaled[:, :warmup] = np.nan
        if self.forecast:
            if not self._fitted:
                self._forecast = ForecastInput.fit(
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
        """Return the unscaled features of consecutive bars, warm-up rows included.

        `bars` are those of the traded instrument, or a dict of all instruments. Before a run the other
        instruments are chosen from `bars`; after a run they are those of the run.
        """
        given = {self.instrument: bars} if isinstance(bars, pd.DataFrame) else bars
        own = self._bars_of(given, "the input")
        seconds = self.bar_seconds or infer_bar_seconds(own, self.instrument)
        if not self._fitted and not self.feature_names:
            self.spec = spec_for(own)
            self.panel = Panel.choose(_coverage({"bars": given}, self.instrument)[0], self.instrument)
        missing = [name for name in self.panel.instruments if name not in given]
        if missing:
            msg = (
                f"FeaturePipeline.compute: no bars of {', '.join(missing)}, only of {', '.join(given)}. "
                "Pass a dict with all instruments of the run."
            )
            raise DataError(msg)
        own_table = self._own_table(given, seconds)
        columns = self._columns(own, seconds, lambda name: _joined([given[name]], name), own_table)
        frame = pd.DataFrame(dict(columns), index=own.index)
        if self._forecast is not None:
            scaled = self._scale(((str(k), frame[k].to_numpy()) for k in frame), len(frame), None)
            self._predict(scaled, own, 0)
            frame[forecast_input.FEATURE] = scaled[-1]
        return frame

    def extend(self, bars: BarsByInstrument, memory: Memory) -> NDArray[np.float32]:
        """Return the scaled features of bars that follow those of earlier calls, shape (n_bars, n_features).

        The rows equal those of one `run_full_pipeline` over all of these bars bit for bit, however they are
        divided into calls, except that warm-up rows have values. Other instruments may have bars at other
        times; those after the last bar of the traded one wait for the next call.

        Parameters
        ----------
        bars : of the traded instrument (at least one) and of the panel's instruments (any number)
        memory : new for the first call, then the same one; a call that raises leaves it unusable
        """
        if not self._fitted:
            msg = "FeaturePipeline.extend needs a fitted pipeline. Load one with FeaturePipeline.from_checkpoint."
            raise CheckpointError(msg)
        memory.rewind()
        own = self._bars_of(bars, "the input")
        _check(own, self.instrument)
        own_table = None
        if self._own_state:  # over all bars so far: a causal function gives the same rows again
            past = memory.tables or {name: table.iloc[:0] for name, table in bars.items()}
            memory.tables = {name: pd.concat([past[name], table]) for name, table in bars.items()}
            table = self._own_table(memory.tables, self.bar_seconds)
            own_table = None if table is None else table.iloc[-len(own) :]
        columns = self._columns(
            own, self.bar_seconds, lambda name: _joined([bars[name]], name), own_table, memory
        )
        scaled = self._scale(columns, len(own), None)
        if self.forecast:
            self._predict(scaled, own, 0)
        return np.ascontiguousarray(scaled.T)

    @property
    def scaler(self) -> tuple[FloatArray, FloatArray]:
        """Return mean and standard deviation of each feature in training, shape (n_features,)."""
        return self._mean.copy(), self._std.copy()

    def unscaled(self, column: int, value: float) -> float:
        """Return the value of a scaled feature before scaling; a clipped one was at least that far out."""
        return float(value * self._std[column] + self._mean[column])

    def state(self) -> dict[str, Any]:
        """Return what inference needs for the same features, as plain values."""
        return {
            "instrument": self.instrument,
            "bar_seconds": self.bar_seconds,
            "spec": self.spec.flat(),
            "names": list(self.feature_names),
            "mean": self._mean.tolist(),
            "std": self._std.tolist(),
            "clip": CLIP,
            "panel": {name: list(value) for name, value in asdict(self.panel).items()},
            "regimes": self.detector.state() if self.detector else None,
            "forecast": self._forecast.state() if self._forecast else None,
            **({"own": self._own_state} if self._own_state else {}),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> FeaturePipeline:
        """Return a fitted pipeline that never refits.

        Own features are those of the file with its hash that this process has loaded (`OwnFeatures.load`); without it,
        `CheckpointError` when they are used.
        """
        regimes, forecast = state.get("regimes"), state.get("forecast", state.get("auxiliary"))
        pipeline = cls(str(state["instrument"]), regimes=regimes is not None, forecast=forecast is not None)
        pipeline.bar_seconds = int(state["bar_seconds"])
        if "spec" in state:
            pipeline.spec = from_values(state["spec"], "the agent's instrument")
        pipeline.feature_names = [
            forecast_input.FEATURE if name == "expected_return" else str(name) for name in state["names"]
        ]
        pipeline.panel = Panel(**{k: tuple(v) for k, v in state.get("panel", {}).items()})
        pipeline.detector = RegimeDetector.from_state(regimes) if regimes is not None else None
        pipeline._forecast = ForecastInput.from_state(forecast) if forecast is not None else None
        pipeline._mean = np.asarray(state["mean"], np.float64)
        pipeline._std = np.asarray(state["std"], np.float64)
        pipeline._fitted = True
        if saved := state.get("own"):
            pipeline._own_state, pipeline.only_own = dict(saved), bool(saved["only"])
            pipeline.own = loaded(str(saved["sha256"]))
            series = loaded_series(saved.get("series", ()))
            known = series is not None and (pipeline.own or not saved["sha256"])
            pipeline.own = OwnFeatures.of(pipeline.own, series or ()) if known else None
        return pipeline

    @property
    def instruments(self) -> tuple[str, ...]:
        """Return the instruments beside the traded one whose bars the features need."""
        more = (self._own_state or {}).get("instruments", ())
        return (*self.panel.instruments, *(name for name in more if name not in self.panel.instruments))

    @classmethod
    def from_checkpoint(cls, path: Path) -> FeaturePipeline:
        """Return the fitted pipeline stored in an agent's `.pt`; it never refits (`from_state`)."""
        content = files.read_pt(path)
        if "features" not in content:
            msg = f"{path} is not a saved agent: it has no 'features', only {', '.join(map(str, content))}."
            raise CheckpointError(msg)
        return cls.from_state(content["features"])

    def _bars_of(self, split: BarsByInstrument, name: str) -> pd.DataFrame:
        if self.instrument not in split:
            msg = (
                f"{self.instrument} has no bars in {name}; the instruments there: "
                f"{', '.join(sorted(split)) or 'none'}. Pass FeaturePipeline(instrument=...)."
            )
            raise DataError(msg)
        return split[self.instrument]

    def _own_table(self, bars: BarsByInstrument, bar_seconds: int) -> pd.DataFrame | None:
        """Return the own features of bars, and note on fitting what they are and need."""
        saved = self._own_state
        if self.own is None:
            if saved:
                needs = [f"--series {one['name']}.csv" for one in saved.get("series", ())]
                if saved["sha256"]:
                    needs.append(f"--features with the file whose SHA-256 begins with {saved['sha256'][:12]}")
                msg = f"This agent was trained with own features ({', '.join(saved['names'])}). "
                msg += f"Pass {', '.join(needs)}."
                raise CheckpointError(msg)
            return None
        table = self.own.table(bars, self.instrument, bar_seconds)
        names = list(table.columns)
        if saved:
            self._check_same({"own features": names}, {"own features": list(saved["names"])})
        else:
            others = sorted(self.own.read - {self.instrument})
            self._own_state = {
                "sha256": self.own.sha256, "names": names, "only": self.only_own, "instruments": others,
                **({"series": [one.state() for one in self.own.series]} if self.own.series else {}),
            }  # fmt: skip
        return table

    def _columns(
        self,
        bars: pd.DataFrame,
        bar_seconds: int,
        read: Reader,
        own_table: pd.DataFrame | None = None,
        memory: Memory | None = None,
    ) -> Columns:
        memory = memory or Memory()
        if own_table is None or not self.only_own:
            yield from self._built_in(bars, bar_seconds, read, memory)
        if own_table is not None:
            yield from ((str(name), own_table[name].to_numpy()) for name in own_table)
        if self.detector is not None:
            yield REGIME_FEATURE, self.detector.high_vol_prob(bars, bar_seconds, memory)

    def _built_in(self, bars: pd.DataFrame, bar_seconds: int, read: Reader, memory: Memory) -> Columns:
        yield from columns(bars, bar_seconds, self.instrument, self.panel, read, memory, self.spec)

    def _predict(self, scaled: NDArray[np.float32], bars: pd.DataFrame, warmup: int) -> None:
        """Write the forecast, clipped as the other features, into the last row of `scaled`."""
        assert self._forecast is not None
        column = self._forecast.column(scaled[:-1, warmup:].T, open_seconds(bars)[warmup:])
        np.clip(column, -CLIP, CLIP, out=scaled[-1, warmup:], casting="same_kind")

    def _scale(self, columns: Columns, n: int, fit_rows: slice | None) -> NDArray[np.float32]:
        """Return the scaled features, shape (n_features, n), with a last row for the forecast, if any.

        The scaler is fitted on `fit_rows`; None uses the present one.
        """
        scaled = np.empty((_MAX_FEATURES + (MAX_OWN if self.own else 0), n), np.float32)
        means, stds, names = [], [], []
        for i, (name, values) in enumerate(columns):
            if fit_rows is None and i < len(self._mean):
                mean, std = float(self._mean[i]), float(self._std[i])
            else:
                part = values[fit_rows] if fit_rows else values
                mean, std = float(part.mean()), float(part.std())
                std = std if std > LOG_FLOOR else 1.0  # a constant feature stays, as zero
            indicators.scale_into(values, mean, std, CLIP, scaled[i])
            means.append(mean)
            stds.append(std)
            names.append(name)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            msg = f"Two features are called {twice}. Give your own feature another name."
            raise DataError(msg)
        if fit_rows is None:
            self._check_same({"features": names}, {"features": self.feature_names[: len(self._mean)]})
        else:
            self._mean, self._std = np.asarray(means), np.asarray(stds)
            self.feature_names = [*names, forecast_input.FEATURE] if self.forecast else names
        return scaled[: len(names) + self.forecast]

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
                f"The bars do not give the features of the training: {'; '.join(lines)}. "
                "Use bars of the same size and instruments as in training."
            )
            raise CheckpointError(msg)


def _first_row(own_table: pd.DataFrame | None, n_train: int) -> int:
    """Return the first row that has all own features."""
    row = 0 if own_table is None else leading(np.isfinite(own_table.to_numpy()).all(axis=1))
    if row >= n_train:
        msg = (
            f"The own features begin after the {n_train} train bars. Shorten their memory, or pass more bars."
        )
        raise DataError(msg)
    return row


def _shared(splits: Mapping[str, BarsByInstrument]) -> list[str]:
    """Return the instruments that every split has."""
    first, *rest = splits.values()
    return [name for name in first if all(name in part for part in rest)]


def _together(splits: Mapping[str, BarsByInstrument], name: str) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(part[name]) for part in splits.values()])


def warmup_bars(bar_seconds: int) -> int:
    """Return the number of first bars without features: two trading days."""
    return -(-WARMUP_MIN * 60 // bar_seconds)


def _coverage(splits: Mapping[str, BarsByInstrument], traded: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return each usable instrument's share of the traded one's bars in the first split, and why others are unusable.

    An instrument is usable if it has at least half of the traded one's bars in every split.
    """
    shares: dict[str, float] = {}
    left_out: dict[str, str] = {}
    named = {name for part in splits.values() for name in part}
    for name in sorted((named | set(INSTRUMENTS)) - {traded}):
        missing = [split for split, part in splits.items() if name not in part]
        if name not in INSTRUMENTS:
            left_out[name] = "no feature uses it"
        elif missing:
            left_out[name] = "no bars" + (f" in {', '.join(missing)}" if len(missing) < len(splits) else "")
        else:
            covered = {split: _share(part[name], part[traded]) for split, part in splits.items()}
            thin = [f"{share:.0%} of {split}" for split, share in covered.items() if share < _MIN_COVERAGE]
            if thin:
                left_out[name] = f"bars for only {', '.join(thin)}"
            else:
                shares[name] = next(iter(covered.values()))
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
    times, tables = [open_seconds(part) for part in parts], [indicators.price_columns(part) for part in parts]
    seconds, prices = times[0], tables[0]
    if len(parts) > 1:
        seconds = np.concatenate(times)
        prices = [np.concatenate(column) for column in zip(*tables, strict=True)]
    if not indicators.bars_are_sound(seconds, *prices):
        check_bars(pd.concat(parts), name)
    return seconds, prices[0], prices[3]


def _check(bars: pd.DataFrame, where: str) -> None:
    """Do `check_bars`; a sound table takes one compiled pass."""
    plain = isinstance(bars.index, pd.DatetimeIndex) and bars.index.tz is not None
    sound = (
        plain
        and {*PRICE_COLUMNS} <= {*bars.columns}
        and indicators.bars_are_sound(open_seconds(bars), *indicators.price_columns(bars))
    )
    if not sound:
        check_bars(bars, where)
