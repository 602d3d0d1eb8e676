"""The MetaTrader sample of docs/use.md, line by line, on the exported file: its fills are the backtest's."""

import dataclasses
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest import runner, trades
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.live import export
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.train_sac_kaggle import KaggleTrainer
from tests import small_runs
from tests.live.test_exact_agent import saved_agent
from tests.use_models import lively_agent, with_holes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "use.md"
AGENTS = {
    "gaussian": TradingEnvConfig(no_trade_band=0.1),
    "gaussian, four hours": TradingEnvConfig(no_trade_band=0.1, decision_interval_min=240, exposure_cap=2.0),
    "exact": TradingEnvConfig(observes="target"),
    "exact, four hours": TradingEnvConfig(observes="target", decision_interval_min=240, exposure_cap=0.5),
}
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="onnx and onnxruntime are not installed",
)


def lines_of_the_sample():
    (text,) = re.findall(r"```cpp\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return text.splitlines()


def constants(lines, contract):
    """Return the numbers of the #define lines, taken from the file's metadata where the comment names it."""
    known = {k: SimpleNamespace(**v) if isinstance(v, dict) else v for k, v in contract.items()}
    found = {}
    for line in lines:
        define = re.fullmatch(r"#define (\w+) +(\S+) +// (.*)", line)
        if define:
            name, number, comment = define.groups()
            found[name] = float(number) if name == "NO_TARGET" else eval(comment, {}, known)
    return found


def statement(text):
    """Return a statement of the sample in Python."""
    condition = re.fullmatch(r"if\((.*)\) (return.*);", text)
    if condition:
        return f"if {expression(condition[1])}: {expression(condition[2])}"
    if re.fullmatch(r"vectorf \w+\(1\);", text):
        return text.removeprefix("vectorf ").replace("(1);", " = [0.0]")
    return expression(text.removesuffix(";").replace("--", " -= 1"))


def expression(text):
    for theirs, ours in (("&&", "and"), ("||", "or"), ("!O", "not O"), ("false", "False"), ("true", "True")):
        text = text.replace(theirs, ours)
    return text


def port(lines, contract, onnx_run):
    """Return the sample's functions as Python ones over its own globals; `OnInit` belongs to MetaTrader alone."""
    code = {"MathAbs": abs, "OnnxRun": onnx_run, "ONNX_NO_CONVERSION": 0, "handle": 1}
    code |= constants(lines, contract)
    state = [m for line in lines if (m := re.match(r"(?:double|int) (\w+) = (\S+);", line))]
    code |= {m[1]: float(m[2]) for m in state}
    names = ", ".join(m[1] for m in state)
    source = []
    for line in lines[lines.index("void Decide(const vectorf &observation)") :]:
        head, text = re.fullmatch(r"(?:void|bool) (\w+)\((.*)\)", line), line.strip()
        if head:
            source += [
                f"def {head[1]}({head[2].split()[-1].lstrip('&') if head[2] else ''}):",
                f"    global {names}",
            ]
        elif text not in ("", "{", "}"):
            source.append("    " + statement(text))
    exec("\n".join(source), code)
    return code


class Broker:
    """An account at a broker, in plain words: a buy at the ask, a sell at the bid, slippage, commission and swap."""

    def __init__(self, market, equity):
        self.market, self.bars = market, market.bars
        self.cash, self.units, self.entry, self.held = equity, 0.0, 0.0, 0

    def quotes(self, t, moment):
        price, spread = self.bars[moment][t], self.bars[f"spread_{moment}"][t]
        side = self.market.terms.price_side
        return price * (1 + (side - 1) / 2 * spread), price * (1 + (side + 1) / 2 * spread)

    def equity(self, t, moment):
        bid, ask = self.quotes(t, moment)
        return self.cash + self.units * (bid if self.units > 0 else ask)

    def trade(self, t, target):
        """Trade at the open of bar t to a target; return the time, the side and the target."""
        terms, (bid, ask) = self.market.terms, self.quotes(t, "open")
        mid = (bid + ask) / 2
        units = target * terms.exposure_cap * self.equity(t, "open") / mid
        change = units - self.units
        price = ask + terms.slippage * mid if change > 0 else bid - terms.slippage * mid
        self.cash -= change * price + terms.commission * abs(change) * mid
        if units * self.units <= 0:
            self.entry, self.held = price, 0
        elif abs(units) > abs(self.units):
            self.entry = (self.entry * abs(self.units) + price * abs(change)) / abs(units)
        self.units = units
        return str(self.market.open_time[t]), np.sign(change), target

    def night(self, nights, t, moment):
        terms, mid = self.market.terms, np.mean(self.quotes(t, moment))
        rate = terms.swap_long if self.units > 0 else terms.swap_short
        self.cash -= nights * rate * abs(self.units) * mid

    def observed(self, t):
        """Return `position`, `unrealised_pnl` and `holding_time` as the page defines them."""
        mid, equity = np.mean(self.quotes(t, "close")), self.equity(t, "close")
        day = self.bars["volatility"][t] * np.sqrt(24)
        values = (
            self.units * mid / (equity * self.market.terms.exposure_cap),
            self.units * (mid - self.entry) / (equity * day) if self.units else 0.0,
            np.log1p(self.held) / 5,
        )
        return np.clip(values, -5, 5).astype(np.float32)


def run(market, raw, contract, session, equity):
    """Follow the sample through the bars; return its fills and the units after each."""

    def onnx_run(_handle, _flags, observation, target):
        (out,) = session.run(None, {export.INPUT: observation[None]})
        target[0] = float(out[0, 0])
        return True

    ea, broker = port(lines_of_the_sample(), contract, onnx_run), Broker(market, equity)
    columns = [column["name"] for column in contract["input"]["columns"]]
    minutes = market.open_time.tz_convert(contract["instrument_spec"]["zone"])
    minutes, fills, units = minutes.hour * 60 + minutes.minute, [], []
    for t in range(market.first_bar, len(market.bars) - 1):
        if (t - market.first_bar) % ea["DECISION_BARS"] == 0:
            own = np.float32([ea["held"]]) if columns[-1] == "held_target" else broker.observed(t)
            observation = np.concatenate((raw[t], market.observed[t, raw.shape[1] :], own))
            assert len(observation) == ea["COLUMNS"]
            ea["Decide"](observation)
        broker.night(market.bars["nights_gap"][t + 1], t + 1, "open")
        if ea["Open"](int(minutes[t + 1])):
            assert not 1005 <= minutes[t + 1] < 1140  # nothing is ordered while it cannot be filled
            fills.append(broker.trade(t + 1, ea["order"]))
            units.append(broker.units)
            ea["Filled"]()
        broker.night(market.bars["nights_bar"][t + 1], t + 1, "close")
        broker.held = broker.held + 1 if broker.units else 0
    return fills, units


def check_replay(agent, market, data, path):
    """Assert that the sample on the exported file has every fill of the backtest; return their number."""
    import onnxruntime

    backtest = runner.validate(agent, market, 1e5)
    wanted = trades.fills_of(market, backtest)
    wanted = wanted[wanted["place"] == 0]  # the last bar's close, which ends the backtest, is no order
    at = wanted["t"].astype(int)

    contract = export.export(path, path.with_suffix(".onnx"))
    session = onnxruntime.InferenceSession(path.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    bars = pd.concat([split["EURUSD"] for split in data.splits.values()])
    raw = FeaturePipeline.from_checkpoint(path).compute(bars)
    raw = raw.iloc[-len(market.bars) :].to_numpy(np.float32)
    fills, units = run(market, raw, contract, session, 1e5)

    times, sides, targets = zip(*fills, strict=True)
    assert list(times) == [str(time) for time in market.open_time[at]]
    assert list(sides) == np.sign(wanted["units"]).tolist()
    np.testing.assert_allclose(units, wanted["position"], rtol=1e-4, atol=1.0)
    # The target filled at a bar is the action of the decision before it.
    decided = backtest.action[(at - market.first_bar - 1) // market.interval_bars]
    np.testing.assert_allclose(targets, decided, atol=2e-5)
    if market.terms.observes_target:
        assert list(targets) == decided.tolist()
    return len(fills)


@needs_onnx
@pytest.mark.parametrize("holes", [False, True], ids=["", "holes"])
@pytest.mark.parametrize("name", AGENTS)
def test_the_sample_replays_the_backtests_fills(name, holes, sample, tmp_path):
    data, config = with_holes(sample) if holes else sample, AGENTS[name]
    if config.observes == "target":
        agent, market, _ = saved_agent(tmp_path / "a.pt", data, config)
    else:
        agent, market = lively_agent(tmp_path / "a.pt", data, 1, config)
    assert check_replay(agent, market, data, tmp_path / "a.pt") > {1: 200, 4: 60}[market.interval_bars]


@needs_onnx
@pytest.mark.parametrize("learner", ["gaussian", "exact"])
def test_a_trained_agent_too(learner, sample, tmp_path):
    """Without costs, because at real ones the agents of a short training stay flat."""
    write_processed(sample, tmp_path / "data.h5")
    costs = "spread_bps=0.01,commission_bps=0,slippage_bps=0"
    if learner == "gaussian":
        env = dataclasses.replace(small_runs.ENV, costs=costs)
        trainer = small_runs.small_trainer(tmp_path / "data.h5", tmp_path, env_config=env, progress=False)
    else:
        trainer = KaggleTrainer(
            tmp_path / "data.h5",
            tmp_path,
            num_episodes=10,
            device="cpu",
            env_config=TradingEnvConfig(costs=costs),
            progress=False,
        )
    trainer.train()
    market = runner.market_of(sample.test["EURUSD"], trainer.features["test"], trainer.env_config, "base")
    assert market.terms.observes_target == (learner == "exact")
    assert check_replay(trainer.agent, market, sample, tmp_path / "agent_1_final.pt") > 400


def test_the_numbers_on_the_page_are_those_of_a_file_of_hours(sample, tmp_path):
    """The page shows the constants of agent 1 as the README trains it, with the names of the metadata."""
    config = TradingEnvConfig(no_trade_band=0.1)
    agent, _ = lively_agent(tmp_path / "a.pt", sample, 1, config)
    contract = export.contract_of(agent, FeaturePipeline.from_checkpoint(tmp_path / "a.pt"), "")
    lines = lines_of_the_sample()
    shown = {m[1]: float(m[2]) for line in lines if (m := re.match(r"#define (\w+) +(\S+)", line))}
    found = constants(lines, contract)
    assert shown.keys() == found.keys()
    assert shown == pytest.approx({**found, "NO_TRADE_BAND": 0.1})
