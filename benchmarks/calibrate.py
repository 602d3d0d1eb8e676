"""How often the verdict's rule says edge: where there is none, and where there is one of a known size.

    python -m benchmarks.calibrate [--sets 2000] [--seed 0] [--real FOLDER]

Each kind of null market gives sets of daily net returns with mean zero; the rule of `sac_kernel.stats.verdict` is
put to each as in a report, without random policies and the pipeline's null (these marks can only lower every rate).
FOLDER holds EURUSD_M5.parquet; without it the real days are left out, and the table says so. Then follow the false
alarms of the evidence of paper trading (`sac_kernel.stats.evidence`), looked at on every day of three years.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sac_kernel.prices import costs
from sac_kernel.stats import evidence, metrics, significance, verdict
from sac_kernel.stats.verdict import ErrorRate, TrialCount

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    Maker = Callable[[int, int, np.random.Generator], "FloatArray"]

DAILY_SD = 0.005
"""Half a percent: EURUSD at an exposure of one."""
YEAR, THREE_YEARS, FIVE_YEARS = 260, 780, 1300
SELECTED_FROM = 20
ONE = TrialCount()
MARKS = {2.0: 0.80, 3.0: 0.95}
"""Least power over five years, by true annual Sharpe ratio of the only trial."""


def random_walk(sets: int, days: int, rng: np.random.Generator) -> FloatArray:
    """Return independent normal days, shape (sets, days)."""
    return rng.normal(0.0, DAILY_SD, (sets, days))


def garch(sets: int, days: int, rng: np.random.Generator) -> FloatArray:
    """Return GARCH(1, 1) days with Student t shocks of 5 degrees of freedom, shape (sets, days)."""
    alpha, beta, burn = 0.08, 0.90, 250
    shock = rng.standard_t(5, (sets, days + burn)) / np.sqrt(5 / 3)
    out, variance = np.empty_like(shock), np.ones(sets)
    for t in range(days + burn):
        out[:, t] = np.sqrt(variance) * shock[:, t]
        variance = 1.0 - alpha - beta + alpha * out[:, t] ** 2 + beta * variance
    return DAILY_SD * out[:, burn:]


def leveraged_garch(sets: int, days: int, rng: np.random.Generator) -> FloatArray:
    """Return GJR-GARCH(1, 1) days: a loss raises the volatility more than a gain; t shocks, shape (sets, days)."""
    alpha, leverage, beta, burn = 0.02, 0.12, 0.90, 250
    out = rng.standard_t(5, (sets, days + burn)) / np.sqrt(5 / 3)
    variance = np.ones(sets)
    for t in range(days + burn):
        out[:, t] *= np.sqrt(variance)
        news = (alpha + leverage * (out[:, t] < 0.0)) * out[:, t] ** 2
        variance = 1.0 - alpha - leverage / 2 - beta + news + beta * variance
    return DAILY_SD * out[:, burn:]


def correlated(rho: float) -> Maker:
    """Return a maker of AR(1) days: a position carried over several days."""

    def make(sets: int, days: int, rng: np.random.Generator) -> FloatArray:
        noise = rng.normal(0.0, DAILY_SD, (sets, days + 50))
        for t in range(1, days + 50):
            noise[:, t] += rho * noise[:, t - 1]
        return noise[:, 50:]

    return make


def overlapping(held: int) -> Maker:
    """Return a maker of days on which `held` positions of as many days overlap, each begun on another day."""

    def make(sets: int, days: int, rng: np.random.Generator) -> FloatArray:
        level = np.cumsum(rng.normal(0.0, DAILY_SD / np.sqrt(held), (sets, days + held)), axis=1)
        return level[:, held:] - level[:, :-held]

    return make


def rare_losses(sets: int, days: int, rng: np.random.Generator) -> FloatArray:
    """Return days of which one in fifty loses six deviations, the others earning that back, shape (sets, days)."""
    share, size = 0.02, 6.0
    lost = rng.random((sets, days)) < share
    return DAILY_SD * (rng.normal(0.0, 1.0, (sets, days)) + size * (share - lost))


def signed(real: FloatArray) -> Maker:
    """Return a maker of real days in their order, from a random start, each with a random sign."""

    def make(sets: int, days: int, rng: np.random.Generator) -> FloatArray:
        start = rng.integers(0, real.size, (sets, 1))
        return real[(start + np.arange(days)) % real.size] * rng.choice([-1.0, 1.0], (sets, days))

    return make


def real_days(folder: Path) -> FloatArray | None:
    """Return EURUSD's returns from 17:00 to 17:00 New York, None where the bars are absent."""
    path = folder / "EURUSD_M5.parquet"
    if not path.is_file():
        return None
    bars = pd.read_parquet(path)
    times = next(
        pd.DatetimeIndex(pd.to_datetime(part, utc=True))
        for part in [*(bars[c] for c in bars.columns if "time" in str(c).lower()), bars.index]
        if not pd.api.types.is_float_dtype(part)
    )
    close = next(bars[c] for c in bars.columns if str(c).lower() == "close").to_numpy(np.float64)
    day = costs.trading_day(times + pd.Timedelta(minutes=5) - pd.Timedelta(seconds=1))
    return metrics.daily_returns(close, day, float(close[0]))[1:]


def edges(days: FloatArray, trials: TrialCount = ONE) -> int:
    """Return in how many sets, shape (sets, days), the rule says edge.

    The rule is put to the sets that pass its mark on the deflated Sharpe ratio: no other can be an edge.
    """

    def deflated(x: FloatArray) -> float:
        return significance.dsr(significance.moments(x), trials.effective, trials.spread / x.size)

    left = [x for x in days if deflated(x) > verdict.LEVEL]
    left.sort(key=lambda x: significance.interval_block(np.log1p(x)))  # resamples are kept by block
    return sum(verdict.decide(x, None, trials)["word"] == verdict.EDGE_WITHOUT_NULL for x in left)


def with_sharpe(days: FloatArray, sharpe_ann: float) -> FloatArray:
    """Return the days moved to a true annual Sharpe ratio, by the deviation of all of them."""
    return days + days.std() * sharpe_ann / np.sqrt(metrics.TRADING_DAYS_PER_YEAR)


def best_of(make: Maker, sets: int, days: int, rng: np.random.Generator) -> FloatArray:
    """Return of `SELECTED_FROM` skill-less sets the one with the best Sharpe ratio, shape (sets, days)."""
    out = np.empty((sets, days))
    for i in range(sets):
        tried = make(SELECTED_FROM, days, rng)
        out[i] = tried[np.argmax(tried.mean(axis=1) / tried.std(axis=1))]
    return out


def false_edges(kinds: dict[str, Maker], sets: int, seed: int) -> list[ErrorRate]:
    """Return the false edges on each kind of null market, over one and five years, single and selected."""
    selected = TrialCount(SELECTED_FROM, float(SELECTED_FROM))
    rates = []
    for name, make in kinds.items():
        for days in (YEAR, FIVE_YEARS):
            rng = np.random.default_rng([seed, days])
            rates.append(ErrorRate(name, days, edges(make(sets, days, rng)), sets))
    label = f"best of {SELECTED_FROM} random walks"
    chosen = best_of(random_walk, sets, FIVE_YEARS, np.random.default_rng([seed, 1]))
    rates.append(ErrorRate(label, FIVE_YEARS, edges(chosen, selected), sets))
    return rates


def power(kinds: dict[str, Maker], sets: int, seed: int) -> list[dict[str, Any]]:
    """Return the share of sets of five years called an edge, by kind, true Sharpe ratio and trials."""
    rows = []
    for name, make in kinds.items():
        for sharpe in (1.0, *MARKS):
            for trials in (1, SELECTED_FROM):
                rng = np.random.default_rng([seed, 2])
                found = edges(
                    with_sharpe(make(sets, FIVE_YEARS, rng), sharpe), TrialCount(trials, float(trials))
                )
                rows.append({"market": name, "sharpe": sharpe, "trials": trials, "share": found / sets})
    return rows


def false_evidence(kinds: dict[str, Maker], sets: int, seed: int) -> list[ErrorRate]:
    """Return how often the evidence of three years without an edge ever reaches what is asked for, peeking daily.

    The account has a daily loss limit of 2 %, so its bets are larger than those of one without.
    """
    bound = evidence.largest_daily_loss(daily_loss_limit=0.02)
    rates = []
    for name, make in kinds.items():
        found = [
            evidence.of_returns(x, bound) for x in make(sets, THREE_YEARS, np.random.default_rng([seed, 3]))
        ]
        for label, highest in (
            (name, [e.highest for e in found]),
            (f"{name}, by weeks", [e.weekly_highest for e in found]),
        ):
            alarms = sum(e >= evidence.ASKED_FOR for e in highest)
            rates.append(ErrorRate(label, THREE_YEARS, alarms, sets))
    return rates


def passes(rates: list[ErrorRate], shares: list[dict[str, Any]]) -> bool:
    """Whether no rate's upper bound is above 5 %, and every power of a single trial reaches its mark."""
    enough = all(r["share"] >= MARKS.get(r["sharpe"], 0.0) for r in shares if r["trials"] == 1)
    return enough and all(rate.upper <= 0.05 for rate in rates)


def print_rates(what: str, rates: list[ErrorRate]) -> None:
    """Print a table of rates with their exact upper bounds."""
    print(f"| null market | days | {what} | rate [%] | upper 95 % bound [%] |\n|---|---|---|---|---|")
    for rate in rates:
        cells = (rate.market, rate.days, f"{rate.false_edges} of {rate.sets}")
        figures = (f"{100 * rate.false_edges / rate.sets:.2f}", f"{100 * rate.upper:.2f}")
        print("| " + " | ".join(map(str, (*cells, *figures))) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SAC_SHARED_DATA", beside)) / "fx_m5_2017_2019"
    parser.add_argument("--real", type=Path, default=folder)
    args = parser.parse_args()
    started = time.monotonic()
    kinds: dict[str, Maker] = {
        "random walk": random_walk,
        "GARCH": garch,
        "GARCH with leverage": leveraged_garch,
    }
    kinds |= {f"serial correlation {rho:g}": correlated(rho) for rho in (0.1, 0.2, 0.3)}
    kinds |= {"overlapping holds of 5 days": overlapping(5), "rare large losses": rare_losses}
    real = real_days(args.real)
    if real is None:
        print("real days: absent, left out")
    else:
        kinds["real days"] = signed(real)
    rates = false_edges(kinds, args.sets, args.seed)
    print(f"sets {args.sets}, seed {args.seed}, Python {platform.python_version()}, NumPy {np.__version__}\n")
    print_rates("false edges", rates)
    powered = ("random walk", "GARCH", "serial correlation 0.3", "real days")
    shares = power({k: kinds[k] for k in powered if k in kinds}, args.sets, args.seed)
    print("\n| market | true Sharpe ratio a year | trials | called an edge [%] |\n|---|---|---|---|")
    for row in shares:
        print(f"| {row['market']} | {row['sharpe']:.0f} | {row['trials']} | {100 * row['share']:.1f} |")
    alarms = false_evidence(kinds, args.sets, args.seed)
    print()
    print_rates("false alarms of the evidence", alarms)
    # Serially correlated days break the null of the days, E[r_t | past] <= 0: only their weeks are held to the mark.
    dependent = ("correlation", "overlapping")
    held = [r for r in alarms if "weeks" in r.market or not any(word in r.market for word in dependent)]
    ok = passes([*rates, *held], shares)
    print(f"\n{'passes' if ok else 'FAILS'} in {time.monotonic() - started:.0f} s")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
