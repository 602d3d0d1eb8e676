"""Exact SAC on markets whose optimum is known, on planted hourly bars through the engine, and its speed.

python -m benchmarks.exact_markets                                 every market, 5 seeds, 3,000 updates
python -m benchmarks.exact_markets --markets M11,M12 --rewards raw --set weight_decay=1.0
python -m benchmarks.exact_markets --planted 0.1,0.05,0.0          hourly bars with such a signal, net of base costs
python -m benchmarks.exact_markets --speed                         updates/s by hand beside plain autograd, one run

A market is one path, that of `make prove` for the same seed. With denoised rewards a noisy market's returns are the
cross-fitted estimate of `features.forecast`. The bound of M11 and M14 is ridge + band: the same path's ridge traded
with the best band for its strength, from dynamic programming. Judged are fresh paths.
"""

from __future__ import annotations

import argparse
import ast
import os
import statistics
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.planted_market import planted_data
from benchmarks.proof import NOISY_PATHS, PATH_BARS, REPLAYED_BARS, reference
from sac_kernel.agent.exact import ExactTraining, train_exact
from sac_kernel.agent.exact_config import ExactConfig
from sac_kernel.agent.exact_rewards import ExactProblem
from sac_kernel.backtest import baselines, runner
from sac_kernel.core import packages
from sac_kernel.core.config import from_flat
from sac_kernel.core.device import set_threads
from sac_kernel.experiment.exact_problem import decisions, exact_problem, greedy_targets
from sac_kernel.experiment.planted_edge import one_path
from sac_kernel.features.forecast import fit_forecast
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market import training
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.known_answer import Judge, KnownAnswerMarket
from sac_kernel.market.known_answer_kinds import ALL_MARKETS
from sac_kernel.market.market import prepare_market
from tests.agent.exact_oracle import PlainAgent

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = ("M1", "M2", "M3", "M4", "M6", "M7", "M8", "M9", "M10", "M11", "M11-02", "M12", "M13", "M14")
MARKS = {
    "M1": "0.99", "M2": "0.99", "M3": "0.99", "M4": "0.99", "M8": "0.96", "M9": "0.99", "M10": "0.99",
    "M11": "1.00 of ridge + band", "M11-02": "1.08 of ridge + band", "M12": "0.955", "M13": "0.90",
    "M14": "ridge + band - 0.01",
}  # fmt: skip
"""What the median of the seeds must reach: captured share of the optimum, or of what ridge + band captures."""


class Row(NamedTuple):
    """One trained agent: shares of the optimum (or the noise-free reward a bar), CPU seconds of training."""

    captured: float
    bound: float
    turnover: float
    seconds: float


class Learning(NamedTuple):
    """How to learn: from how many bars, with how many updates, 'denoised' or 'raw' rewards, fields of ExactConfig."""

    updates: int
    bars: int = PATH_BARS
    rewards: str = "denoised"
    config: Mapping[str, Any] = MappingProxyType({})


def learn(market: KnownAnswerMarket, seed: int, how: Learning, judge: Judge) -> Row:
    """Train on one path of a market and judge on fresh ones."""
    path = one_path(market, how.bars, seed)
    features, returns, bound = path.features[:, 0], path.returns[:, 0], float("nan")
    if market.noise and how.rewards == "denoised":
        returns = fit_forecast(features[:-1], returns).train
    if market.name in NOISY_PATHS:
        bound = reference(market, fit_forecast(features[:-1], path.returns[:, 0], heads=("ridge",)), judge)
    problem = ExactProblem(features, returns, market.cost)
    started = time.process_time()
    config = from_flat(ExactConfig, {"gamma": market.gamma, **how.config}, "--set")
    policy = train_exact(problem, config, how.updates, seed)
    seconds = time.process_time() - started
    result = judge.result(lambda obs: policy.target(obs[:, :-1], obs[:, -1], market.cost))
    captured = judge.capture(result) if market.ic else result.reward
    return Row(captured, bound, judge.turnover_ratio(result) if market.ic else result.turnover, seconds)


def markets(args: argparse.Namespace, config: dict[str, Any]) -> None:
    """Print one row a market."""
    print(
        "| market | captured, median (each seed) | mark | ridge + band | captured / ridge + band | turnover | CPU s |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in args.markets.split(","):
        judge = Judge(ALL_MARKETS[name], bars=300, n=256)
        how = Learning(args.updates, REPLAYED_BARS if name == "M7" else PATH_BARS, args.rewards, config)
        rows = [learn(ALL_MARKETS[name], seed, how, judge) for seed in range(args.seeds)]
        own = [row.captured for row in rows]
        shares = [row.captured / row.bound for row in rows]
        form = (
            "{:.3f}" if ALL_MARKETS[name].ic else "{:.1e}"
        )  # a reward a bar where the optimum is to stay flat
        cells = (
            f"{form.format(statistics.median(own))} ({_joined(own, form)})",
            MARKS.get(name, ""),
            _joined([row.bound for row in rows]),
            _joined(shares),
            f"{statistics.median(row.turnover for row in rows):.2f}",
            f"{statistics.median(row.seconds for row in rows):.1f}",
        )
        print(f"| {name} | " + " | ".join(map(str, cells)) + " |", flush=True)


def _joined(values: list[float], form: str = "{:.3f}") -> str:
    return "" if np.isnan(values).any() else " ".join(form.format(value) for value in values)


def planted(args: argparse.Namespace, config: dict[str, Any]) -> None:
    """Print net results on the test split of planted markets: exact SAC beside ridge + band, base costs."""
    print("| IC | seed | forecast | exact: net, Sharpe, trades | ridge + band: net, Sharpe, trades | CPU s |")
    print("|---|---|---|---|---|---|")
    env = TradingEnvConfig()
    for ic in (float(text) for text in args.planted.split(",")):
        net: dict[str, list[float]] = {"exact": [], "band": []}
        for seed in range(args.seeds):
            data = planted_data(ic, seed)
            frames = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)
            train = prepare_market(data.train["EURUSD"], frames[0], env, close_at_end=False)
            test = runner.market_of(data.test["EURUSD"], frames[2], env, "base")
            settings = from_flat(ExactConfig, config, "--set")
            estimate, facts = training.forecast_of_decisions(train, frames[0], settings.gamma)
            started = time.process_time()
            problem = exact_problem(train, env, settings.positions, forecast=estimate)
            policy = train_exact(problem, settings, args.updates, seed)
            seconds = time.process_time() - started
            fitted_on = runner.market_of(data.train["EURUSD"], frames[0], env, "base")
            band = baselines.band_targets(test, fitted_on, baselines.ridge(test, fitted_on))
            passes = {
                "exact": runner.run_targets(
                    test, greedy_targets(test, policy, decisions(test, env)), 1e5, "exact", "base"
                ),
                "band": runner.run_targets(test, band, 1e5, "ridge + band", "base"),
            }
            cells = []
            for kind, result in passes.items():
                row = result.row()
                net[kind].append(row["net_return_frac"])
                cells.append(f"{row['net_return_frac']:+.1%}, {row['sharpe_ann']:.2f}, {row['trades']}")
            head = f"{facts['head']}, t {facts['t_stat']:.1f}"
            print(f"| {ic:g} | {seed} | {head} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)
        medians = {kind: statistics.median(values) for kind, values in net.items()}
        print(f"| {ic:g} | median | | {medians['exact']:+.1%} | {medians['band']:+.1%} | |", flush=True)


def speed(rounds: int = 6, updates: int = 200, columns: int = 36, rows: int = 100_000) -> None:
    """Print updates/s of one agent by hand, and as autograd does them, in turns within one run."""
    rng = np.random.default_rng(0)
    problem = ExactProblem(rng.standard_normal((rows + 1, columns)), 0.01 * rng.standard_normal(rows), 1e-3)
    print("| batch | by hand, updates/s | plain autograd | ratio |")
    print("|---|---|---|---|")
    for batch in (256, 128):
        config = ExactConfig(batch_size=batch)
        training = ExactTraining([problem], [config], [0])
        plain = PlainAgent(problem, config, training.scales[0])
        taken: dict[str, list[float]] = {"hand": [], "plain": []}
        for _ in range(rounds):
            started = time.process_time()
            training.run(updates)
            middle = time.process_time()
            for _ in range(updates):
                plain.update(torch.randint(0, rows - 1, (batch,)))
            taken["hand"].append(middle - started)
            taken["plain"].append(time.process_time() - middle)
        hand, autograd = (updates / statistics.median(values) for values in taken.values())
        print(f"| {batch} | {hand:,.0f} | {autograd:,.0f} | {hand / autograd:.2f} |", flush=True)


def main() -> int:
    """Print the asked table as Markdown, with settings, versions and date."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exact_markets", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--markets", default=",".join(SHOWN), help="names, comma-separated")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--updates", type=int, default=3_000)
    parser.add_argument("--rewards", choices=("denoised", "raw"), default="denoised")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of ExactConfig")
    parser.add_argument("--planted", metavar="IC,...", help="planted hourly markets of such ICs instead")
    parser.add_argument("--speed", action="store_true", help="updates/s instead")
    args = parser.parse_args()
    set_threads(1)
    config = {name: ast.literal_eval(text) for name, text in (pair.split("=", 1) for pair in args.set)}
    print(f"{time.strftime('%Y-%m-%d', time.gmtime())}, one thread; {packages.versions()}; {vars(args)}\n")
    if args.speed:
        speed()
    elif args.planted:
        planted(args, config)
    else:
        markets(args, config)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
