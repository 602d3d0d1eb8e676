"""The pipeline's own null and its power: the whole chain refitted on copies of the bars that hold no signal.

In a copy row t has the market features of the same local time some weeks earlier, so what they say is cut off from
what follows. Clock, cost, tradability and volatility stay with the account. The real run is the copy of 0 weeks: same
rows, folds and seeds. Its statistics were fixed beforehand, and both leave out the forecast's gate and slope, since a
gated agent holds still on nearly every copy:

t               of raw forecast x return, summed a day; the first fold's train rows out of fold, then all test rows
growth_per_day  net log growth of the joined folds of an agent that must trade, mean over the seeds; its forecast is
                the raw one with `FORECAST_SHARE` of the return's deviation

Each is the largest over the agents. `stats.null` has the arithmetic.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sac_kernel.agent.config import EXACT
from sac_kernel.agent.exact import ExactTraining
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.sac import SACAgent
from sac_kernel.backtest import baselines, policies, runner, validation
from sac_kernel.core import files, packages, strings
from sac_kernel.core.config import require
from sac_kernel.core.device import set_threads
from sac_kernel.core.errors import DataError
from sac_kernel.experiment import fold_jobs, job_pool
from sac_kernel.experiment.exact_problem import exact_problem
from sac_kernel.experiment.fold_jobs import BARS, Settings
from sac_kernel.experiment.run_config import RunConfig, preset_of
from sac_kernel.features import forecast_input
from sac_kernel.features.columns import time_features
from sac_kernel.features.forecast import SIGNIFICANCE, fit_forecast
from sac_kernel.features.forecast_input import ForecastInput
from sac_kernel.features.pipeline import CLIP, MEMORY_S, REGIME_FEATURE, FeaturePipeline, warmup_bars
from sac_kernel.market import training
from sac_kernel.market.decision_bars import NEVER, fill_bar, forecast_target
from sac_kernel.prices.bars import open_seconds, seconds_of, spec_for
from sac_kernel.prices.clocks import utc_offsets
from sac_kernel.stats import metrics, null
from sac_kernel.stats.verdict import NULL_LEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from sac_kernel.agent.exact_rewards import ExactProblem
    from sac_kernel.backtest.validation import Fold
    from sac_kernel.core.clock import Deadline
    from sac_kernel.experiment.job_pool import Outcome, Place
    from sac_kernel.market.account import TradingEnvConfig
    from sac_kernel.market.market import Market

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

logger = logging.getLogger(__name__)

JOBS, SUMMARY = "jobs", "summary.json"
STATISTICS = ("t", "growth_per_day")
FORECAST_SHARE = 0.05
"""Deviation of the forecast that an agent which must trade learns from, as a share of the return's."""
STRENGTHS = (0.02, 0.04, 0.07, 0.10)
"""Planted signals: correlation of the next bar's return with the direction, where that is not clipped."""
DIRECTION_CLIP = 2.0
DAY_S = 86_400
_DIRECTION_SEED = 20
_PREFIXES = ("sac_", "exact_", "env_")
_VOLATILITY = ("atr_ratio_4h_1d", "parkinson_1h", "volatility_ratio_4h_1d")
_JOB_FIELDS = ("agents", "seeds", "folds", "test_days", "val_days", "purge_days", "updates")


# -- copies -------------------------------------------------------------------------------------------


def stays(name: str, clock: Sequence[str]) -> bool:
    """Return whether a feature stays with the account: one of the clock or of volatility."""
    return name in clock or name == REGIME_FEATURE or name.endswith(_VOLATILITY)


def shifted(features: pd.DataFrame, local_s: IntArray, weeks: int, kept: Sequence[str] = ()) -> pd.DataFrame:
    """Return features of which row t has the columns, but those `kept`, of the same local time `weeks` weeks earlier.

    Rows without an earlier one are NaN; 0 weeks returns the features as they are.

    Parameters
    ----------
    local_s : local wall time of each row [s]
    """
    if weeks == 0:
        return features
    rows = null.rows_before(local_s, weeks)
    moved = [i for i, name in enumerate(features.columns) if name not in kept]
    values = features.to_numpy(copy=True)
    values[:, moved] = np.where((rows >= 0)[:, None], values[np.maximum(rows, 0)][:, moved], np.nan)
    return pd.DataFrame(values, index=features.index, columns=features.columns)


def planted(bars: pd.DataFrame, moves: FloatArray) -> pd.DataFrame:
    """Return bars to whose log returns `moves` (n,) are added: open to close of each bar, kept by all later ones."""
    after = np.cumsum(moves)
    before = after - moves
    made = bars.copy()
    shift = {
        "open": before, "high": np.maximum(before, after), "low": np.minimum(before, after), "close": after,
    }  # fmt: skip
    for name, log_move in shift.items():
        made[name] = bars[name].to_numpy() * np.exp(log_move)
    return made


class Plan(NamedTuple):
    """Rows and copies of a test.

    Attributes
    ----------
    spare_weeks : weeks of features at the start that only copies read
    offsets : weeks of each copy, distinct, in the order in which they are made
    """

    spare_weeks: int
    offsets: list[int]


def plan(settings: Settings, copies: int) -> Plan:
    """Return as many copies as are asked for, or as the first fold's train days allow: half of them stay.

    Raises
    ------
    DataError
        If there is no room for a single copy.
    """
    source = fold_jobs.opened(settings.h5_path)
    frame = source.bars[source.instrument]
    seconds = seconds_of(frame, "pipeline null")
    minutes = max(settings.recipe(_job(a, 0)).env_config.decision_interval_min for a in settings.agents)
    horizon_days, memory_days = 2 * max(60 * minutes, seconds) / DAY_S, MEMORY_S / DAY_S
    train = source.days[settings.fold_list()[0].train]
    room = int(train[-1] - train[0]) // 2 // 7
    first = math.ceil((memory_days + horizon_days + null.MARGIN_DAYS) / 7.0)
    spare = min(first + copies - 1, room)
    offsets = null.week_offsets(7 * spare, memory_days, horizon_days, copies)
    if not offsets.size:
        msg = (
            f"The first fold has {train.size} train days, of which half may be spared for the copies; the first copy "
            f"needs {first} weeks. Take fewer folds or longer bars."
        )
        raise DataError(msg)
    return Plan(spare, [int(weeks) for weeks in offsets])


# -- one run of the chain -----------------------------------------------------------------------------


def pool_job(settings: Settings, spare_weeks: int, weeks: int, strength: float = 0.0) -> dict[str, Any]:
    """Return a run of the chain for `job_pool`: all that decides its result.

    Parameters
    ----------
    weeks : offset of the copy; 0 is the real run
    strength : of a planted signal (`STRENGTHS`), or 0
    """
    what = f"copy, {weeks} weeks" if weeks else "real run"
    own = {k: v for k, v in settings.config.flat().items() if k == "learner" or k.startswith(_PREFIXES)}
    return {
        "label": f"{what}, planted {strength:g}" if strength else what,
        "weeks": weeks,
        "strength": strength,
        "spare_weeks": spare_weeks,
        **{name: getattr(settings, name) for name in _JOB_FIELDS},
        "parameters": own,
        "data_hash": fold_jobs.opened(settings.h5_path).content_hash,
        "code_hash": packages.code_hash(),
    }


def run_pool_job(given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Run the chain on whatever process `job_pool` chose."""
    set_threads(1)
    fields = {name: given[name] for name in _JOB_FIELDS}
    config = RunConfig.from_flat(given["parameters"], "pipeline null")
    settings = Settings(str(place.inputs[BARS]), tiers=("base",), config=config, **fields)
    return run_chain(settings, given["spare_weeks"], given["weeks"], given["strength"])


def run_chain(settings: Settings, spare_weeks: int, weeks: int, strength: float = 0.0) -> dict[str, Any]:
    """Return the statistics of one run of the chain over all folds, agents and seeds.

    Returns
    -------
    dict
        t and growth_per_day (None: no trade), agents (the same of each), gate (out-of-fold t of each forecast as its
        gate sees it), cpu_s; of a planted run also band (Sharpe ratio a year and growth a day of the band policy that
        knows the signal, over all rows)
    """
    started_s = time.process_time()
    copy = _Copy(settings, spare_weeks, weeks)
    facts: dict[str, Any] = {}
    if strength:
        facts["band"] = copy.plant(strength)
    agents, gate = {}, []
    for agent_id in settings.agents:
        folds = [copy.fold(agent_id, fold) for fold in settings.fold_list()]
        agents[str(agent_id)] = _statistics(folds)
        gate += [fold.gate_t for fold in folds]
    largest = {name: max((_value(one[name]) for one in agents.values()), key=_known) for name in STATISTICS}
    cpu_s = time.process_time() - started_s
    plain = {name: None if math.isnan(value) else value for name, value in largest.items()}
    return {**plain, "agents": agents, "gate": gate, **facts, "cpu_s": cpu_s}


class _Judged(NamedTuple):
    """One agent in one fold: daily sums of forecast x return, and each seed's pass over the test days."""

    train_days: FloatArray
    test_days: FloatArray
    growth: FloatArray  # (seeds,)
    traded: bool
    days: int
    gate_t: float


def _statistics(folds: Sequence[_Judged]) -> dict[str, float | None]:
    daily = np.concatenate([folds[0].train_days, *(fold.test_days for fold in folds)])
    error = float(daily.std(ddof=1)) / math.sqrt(daily.size)
    growth = sum(fold.growth.mean() for fold in folds) / sum(fold.days for fold in folds)
    traded = any(fold.traded for fold in folds) and math.isfinite(growth)
    return {
        "t": float(daily.mean()) / error if error > 0 else None,
        "growth_per_day": float(growth) if traded else None,
    }


class _Copy:
    """The bars of a copy and, fold by fold, its features and agents."""

    def __init__(self, settings: Settings, spare_weeks: int, weeks: int) -> None:
        self._settings, self._weeks = settings, weeks
        source = fold_jobs.opened(settings.h5_path)
        self._days, frame = source.days, source.bars[source.instrument]
        self._bar_s, spec = seconds_of(frame, "pipeline null"), spec_for(frame)
        seconds = open_seconds(frame)
        self._local_s = seconds + utc_offsets(seconds, spec.zone)[seconds // 3600 - seconds[0] // 3600]
        start_s = self._local_s[warmup_bars(self._bar_s)] + spare_weeks * null.WEEK_S
        self._used = np.arange(len(frame)) >= np.searchsorted(np.maximum.accumulate(self._local_s), start_s)
        self._bars, self._day = frame, validation.trading_days(frame)
        self._clock = tuple(time_features(frame.index[:1], self._bar_s, spec))  # type: ignore[arg-type]  # a DatetimeIndex

    def _features(self, fold: Fold, *, regimes: bool) -> pd.DataFrame:
        """Return the copy's scaled features up to the fold's last test day."""
        end = (int(fold.train[-1]), int(fold.test[-1]))
        frame = _real_features(self._settings.h5_path, *end, regimes=regimes)
        kept = [name for name in map(str, frame.columns) if stays(name, self._clock)]
        return shifted(frame, self._local_s[: len(frame)], self._weeks, kept)

    def plant(self, strength: float) -> dict[str, float]:
        """Add strength x volatility x direction(features of row t) to the return of row t + 1; judge the band policy.

        The direction is a fixed random one of the features that are shifted, of deviation 1, clipped.
        """
        settings = self._settings
        features = self._features(settings.fold_list()[-1], regimes=False)
        used = self._used[: len(features)]
        moved = [name for name in map(str, features.columns) if not stays(name, self._clock)]
        values = features.loc[used, moved].to_numpy(np.float64)
        signal = values @ np.random.default_rng(_DIRECTION_SEED).standard_normal(len(moved))
        signal = np.clip((signal - signal.mean()) / signal.std(), -DIRECTION_CLIP, DIRECTION_CLIP)
        env = settings.recipe(_job(settings.agents[0], 0)).env_config
        bars = self._bars[: len(features)][used]
        before = runner.market_of(bars, features[used], env, "base")
        expected = strength * before.bars["volatility"] * signal
        moves = np.zeros(len(self._bars))
        moves[np.flatnonzero(used)[1:]] = expected[:-1]
        self._bars = planted(self._bars, moves)
        market = runner.market_of(self._bars[: len(features)][used], features[used], env, "base")
        targets = baselines.band_targets(market, market, baselines.Fitted(expected, expected))
        found = runner.run_targets(market, targets, env.initial_equity, "band", "base")
        daily = found.daily_returns
        sharpe = metrics.sharpe_ann(daily, found.days_a_year)
        return {"sharpe_ann": float(sharpe), "growth_per_day": found.log_growth / daily.size}

    def fold(self, agent_id: int, fold: Fold) -> _Judged:
        """Fit forecast and agents on the fold's train rows; judge them on its test rows."""
        settings, preset = self._settings, preset_of(agent_id)
        recipe = settings.recipe(_job(agent_id, 0))
        config, env = recipe.config, recipe.env_config
        assert isinstance(config, ExactConfig)
        frame = self._features(fold, regimes=preset.regimes)
        days, used = self._day[: len(frame)], self._used[: len(frame)]
        bars = self._bars[: len(frame)]
        train, test = (used & np.isin(days, self._days[block]) for block in (fold.train, fold.test))
        if preset.forecast:
            frame = self._with_forecast(frame, bars, train)
        plain = dataclasses.replace(env, reward="log_return")
        market, _ = training.build_training_market(bars[train], frame[train], plain)
        judged = runner.market_of(bars[test], frame[test], env, "base")

        inputs = frame.drop(columns=forecast_input.FEATURE, errors="ignore")
        target, stride = forecast_target(market, config.gamma), market.interval_bars
        purge = MEMORY_S // market.bar_seconds + stride
        fit = fit_forecast(inputs[train], target, purge=purge, stride=stride, raw=True)
        unit = float(fit.train[np.isfinite(target)].std()) or math.nan
        ahead = fit.predict(inputs[test]) / unit
        facts = (
            _daily(fit.train / unit * target, market.bars["trading_day"]),
            _daily(ahead * forecast_target(judged, config.gamma), judged.bars["trading_day"]),
        )
        count = np.unique(judged.bars["trading_day"]).size
        if math.isnan(unit):
            return _Judged(*facts, np.zeros(len(settings.seeds)), traded=False, days=count, gate_t=fit.t_stat)
        known = FORECAST_SHARE * float(np.nanstd(target)) / unit * fit.train * (fill_bar(market) < NEVER)
        problem = exact_problem(market, plain, config.positions, known)
        growth, traded = self._trained(problem, config, agent_id, judged, env)
        return _Judged(*facts, growth, traded, count, fit.t_stat)

    def _trained(
        self,
        problem: ExactProblem,
        config: ExactConfig,
        agent_id: int,
        judged: Market,
        env: TradingEnvConfig,
    ) -> tuple[FloatArray, bool]:
        seeds = self._settings.seeds
        together = ExactTraining([problem] * len(seeds), [config] * len(seeds), seeds)
        together.run(self._settings.updates)
        passes = [
            runner.run_policy(
                judged,
                runner.greedy_policy(SACAgent.of_policy(together.policy(i), agent_id, seed)),
                env.initial_equity,
                policies.agent(agent_id, seed=seed),
                "base",
            )
            for i, seed in enumerate(seeds)
        ]
        return np.array([one.log_growth for one in passes]), any(one.turnover > 0 for one in passes)

    def _with_forecast(
        self, frame: pd.DataFrame, bars: pd.DataFrame, train: NDArray[np.bool_]
    ) -> pd.DataFrame:
        """Return the features with agent 2's column, fitted to the copy."""
        values, seconds = frame.to_numpy(np.float64), open_seconds(bars)
        returns = forecast_input.next_returns(bars[train], self._bar_s)
        fitted = ForecastInput.fit(values[train], returns, seconds[train], MEMORY_S // self._bar_s)
        column = np.clip(fitted.column(values, seconds), -CLIP, CLIP)
        return frame.assign(**{forecast_input.FEATURE: column.astype(np.float32)})


@functools.lru_cache(maxsize=16)
def _real_features(h5_path: str, train_end: int, test_end: int, *, regimes: bool) -> pd.DataFrame:
    """Return the scaled features up to a day, fitted on the train days; the same for all copies of a process."""
    source = fold_jobs.opened(h5_path)
    parts = {}
    for name, first, last in (("train", 0, train_end), ("later", train_end + 1, test_end)):
        inside = source.days[first : last + 1]
        parts[name] = {k: b[np.isin(validation.trading_days(b), inside)] for k, b in source.bars.items()}
    frames = FeaturePipeline(source.instrument, regimes=regimes).run_splits(parts)
    return pd.concat(list(frames.values()))


def _daily(products: FloatArray, day: IntArray) -> FloatArray:
    """Return the sum of each day that has a value, in the order of the days."""
    known = np.isfinite(products)
    _, place = np.unique(day[known], return_inverse=True)
    return np.bincount(place, weights=products[known]).astype(np.float64)


def _job(agent_id: int, seed: int) -> fold_jobs.Job:
    return fold_jobs.Job(agent_id, seed, 1, "base")


def _value(found: float | None) -> float:
    return math.nan if found is None else float(found)


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value


# -- all runs -----------------------------------------------------------------------------------------


def run(  # noqa: PLR0913  # which copies, where and until when
    settings: Settings,
    folder: Path,
    copies: int = 39,
    power_copies: int = 0,
    workers: int = 1,
    deadline: Deadline | None = None,
    reserve_s: float = 0.0,
) -> dict[str, Any]:
    """Run what is not finished, the real run first; write and return summary.json.

    There are as many copies as end `reserve_s` before the deadline, those of power fewer first.

    Parameters
    ----------
    settings : validation days are not used and must be 0
    copies, power_copies : of the null; of each strength of `STRENGTHS`, 0: no power

    Returns
    -------
    dict
        null (`stats.null.result`, with gate and cpu_s a copy), power (`stats.null.power`, or None), settings
    """
    require(copies >= 1, "null", "copies must be >= 1", copies)
    require(power_copies >= 0, "null", "power must be >= 0", power_copies)
    require(settings.val_days == 0, "null", "val_days must be 0", settings.val_days)
    require(settings.learner == EXACT, "null", "the learner must be exact", settings.learner)
    spare, offsets = plan(settings, copies)
    if len(offsets) < copies:
        logger.warning("%s", strings.NULL_FEWER.format(copies=len(offsets), asked=copies))
    real = pool_job(settings, spare, 0)
    nulls = [pool_job(settings, spare, weeks) for weeks in offsets]
    planted_at = offsets[:power_copies]
    strong = [pool_job(settings, spare, w, ic) for ic in STRENGTHS for w in planted_at]

    def finished(jobs: Sequence[Mapping[str, Any]]) -> list[Outcome]:
        inputs = {BARS: Path(settings.h5_path)}
        jobs_in = folder / JOBS
        return _complete(
            job_pool.run(jobs, run_pool_job, jobs_in, inputs=inputs, workers=workers, deadline=deadline),
            jobs_in,
        )

    (first,) = finished([real])
    if deadline and math.isfinite(deadline.left_s()):
        room = max(1, int((deadline.left_s() - reserve_s) * workers / max(first.seconds, 1e-9)))
        if room < len(nulls) + len(strong):
            logger.warning("%s", strings.NULL_NO_TIME.format(runs=room, planned=len(nulls) + len(strong)))
        nulls = nulls[:room]
        planted_at = planted_at[: (room - len(nulls)) // len(STRENGTHS)]
        strong = [pool_job(settings, spare, w, ic) for ic in STRENGTHS for w in planted_at]
    left = len(nulls) + len(strong)
    minutes = first.seconds * left / workers / 60.0
    logger.info(
        "%s",
        strings.NULL_COST.format(seconds=first.seconds, jobs=left, workers=workers, minutes=minutes),
    )
    results = [outcome.result or {} for outcome in finished([*nulls, *strong])]
    summary = summarised(first.result or {}, results[: len(nulls)], results[len(nulls) :], len(planted_at))
    summary["settings"] = {name: getattr(settings, name) for name in _JOB_FIELDS}
    summary["offsets_weeks"] = offsets
    files.write_json(folder / SUMMARY, summary)
    return summary


def summarised(
    real: Mapping[str, Any],
    nulls: Sequence[Mapping[str, Any]],
    strong: Sequence[Mapping[str, Any]] = (),
    of_each: int = 0,
) -> dict[str, Any]:
    """Return null and power of finished runs (`run_chain`); `strong` has `of_each` runs of each strength."""
    values = {name: [_value(one[name]) for one in nulls] for name in STATISTICS}
    found = null.result({name: _value(real[name]) for name in STATISTICS}, values)
    found["gate"] = {"fits": len(real["gate"]), "flat": int(np.sum(np.array(real["gate"]) < SIGNIFICANCE))}
    found["cpu_s"] = float(np.mean([one["cpu_s"] for one in (real, *nulls)]))
    if not of_each:
        return {"null": found, "power": None}
    level, rows = max(NULL_LEVEL, found["least_p"]), []
    for i in range(0, len(strong), of_each):
        part = strong[i : i + of_each]
        each = [null.result({k: _value(one[k]) for k in STATISTICS}, values)["p_value"] for one in part]
        band = np.array([[one["band"]["sharpe_ann"], one["band"]["growth_per_day"]] for one in part])
        agent = np.mean([_value(one["growth_per_day"]) for one in part])
        found_here = sum(p is not None and p <= level for p in each)
        rows.append((float(band[:, 0].mean()), found_here, float(agent), float(band[:, 1].mean())))
    rows.sort()
    power = null.power([row[0] for row in rows], [row[1] for row in rows], of_each)
    for line, row in zip(power["rows"], rows, strict=True):
        line["agent_growth_per_day"], line["band_growth_per_day"] = row[2:]
    return {"null": found, "power": {**power, "level": level}}


def _complete(outcomes: Sequence[Outcome], folder: Path) -> list[Outcome]:
    missing = [one for one in outcomes if one.result is None]
    if missing:
        first = missing[0]
        msg = (
            f"{len(missing)} of {len(outcomes)} runs have no result. First: {first.job['label']}: {first.failure} "
            f"(log: {folder / first.name / job_pool.LOG}). Run the same command again to continue."
        )
        raise DataError(msg)
    return list(outcomes)
