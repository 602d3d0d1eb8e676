"""A live decision is the backtest's, bit for bit, at every bar of the test split."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest import runner
from sac_kernel.core.errors import CheckpointError, DataError
from sac_kernel.features.indicators import Memory
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.live.decide import Decider, account
from sac_kernel.market import engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.records import Account, blank
from sac_kernel.prices.costs import trading_day
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.instruments import spec_of
from tests.conftest import make_bars, make_data
from tests.support import says
from tests.use_models import lively_agent, with_holes

H1 = 3600


def history_of(data):
    return pd.concat([data.train["EURUSD"], data.val["EURUSD"]])


CONFIGS = {
    1: TradingEnvConfig(),
    2: TradingEnvConfig(decision_interval_min=120, impact=0.5, no_trade_band=0.05),
    3: TradingEnvConfig(
        decision_interval_min=240, volatility_target=0.1, atr_risk=0.02, drawdown_stop=0.05, stop_loss_bps=40
    ),
}


@pytest.mark.parametrize("agent_id", CONFIGS)
def test_decisions_are_the_backtests_over_the_whole_test_split(agent_id, sample, tmp_path):
    config = CONFIGS[agent_id]
    agent, market = lively_agent(tmp_path / "agent.pt", sample, agent_id, config)
    backtest = runner.validate(agent, market, config.initial_equity)

    decider = Decider.from_checkpoint(tmp_path / "agent.pt", price_side="ask")
    decider.follow(history_of(sample))
    bars, targets, k = sample.test["EURUSD"], [], decider.interval_bars
    state = blank(Account)
    engine.reset(state, market.bars, market.terms, 0, len(bars) - 1, config.initial_equity, 0.0)
    seen = lapsed = 0
    while not state.truncated:
        t = int(state.t)
        decision = decider.decide(bars.iloc[seen : t + 1], state)  # only what is closed by now
        assert decision.open_time_utc == bars.index[t]
        assert np.array_equal(decider.rows[-1], market.bars[t])
        assert np.array_equal(decider.observed[-1], market.observed[t])
        targets.append(decision.action)
        seen, before = t + 1, state.copy()
        engine.step(state, market.bars, market.minutes, market.terms, decision.action)
        lapsed += decision.action != decision.target
        if market.open_time[int(state.t)] - market.open_time[t] == (int(state.t) - t) * pd.Timedelta("1h"):
            _check_what_is_held(decision, before, state, market)
    assert k == {1: 1, 2: 2, 3: 4}[agent_id]
    assert len(targets) == len(backtest.action) > 1100 / k
    assert targets == backtest.action.tolist()
    assert state.equity == backtest.equity[-1]
    assert len(set(targets)) > len(targets) / 3
    assert backtest.trades > 0.2 * len(targets)
    assert (lapsed > 30) == (k == 1)  # hours: the freeze outlasts an interval of one or two of them


def _check_what_is_held(decision, before, after, market):
    """The engine did what the decision said, unless a stop or the end of the bars closed the position inside."""
    if not decision.order:
        assert after.trades - before.trades <= (1 if after.units == 0.0 else 0)
        assert after.units in (before.units, 0.0)
        assert decision.units == before.units
    elif abs(after.target) <= 1.0:
        assert after.target == decision.target
        if not after.truncated:
            size = decision.target * market.terms.exposure_cap * market.bars["cap_share"][int(before.t)]
            assert decision.exposure == pytest.approx(size, rel=1e-9)


@pytest.mark.parametrize("interval_h", [1, 2])
def test_at_every_cut_around_weekends_and_holes_it_says_what_the_engine_will_hold(
    interval_h, sample, tmp_path
):
    """Bars are missing over a freeze, up to one and after one; who sees the next bar open tells `next_open`."""
    data, config = with_holes(sample), TradingEnvConfig(decision_interval_min=60 * interval_h)
    _, market = lively_agent(tmp_path / "agent.pt", data, 1, config)
    decider = Decider.from_checkpoint(tmp_path / "agent.pt", price_side="ask")
    bars, state = data.test["EURUSD"], blank(Account)
    first = int(np.argmax(bars.index >= pd.Timestamp("2017-10-27", tz="UTC")))
    decider.follow(pd.concat([history_of(data), bars.iloc[:first]]))
    engine.reset(state, market.bars, market.terms, first, 10_000, 1e5, 0.0)
    wrong_without, weekends, seen = set(), 0, first
    while bars.index[int(state.t)] < pd.Timestamp("2017-11-16", tz="UTC"):
        t = int(state.t)
        known = decider.decide(bars.iloc[seen : t + 1], state, bars.index[t + 1])
        blind = decider.decide(bars.iloc[:0], state)
        pause = bars.index[t + 1] - bars.index[t]
        before, seen = state.copy(), t + 1
        engine.step(state, market.bars, market.minutes, market.terms, known.action)
        row_of_fill = np.flatnonzero(market.bars["tradable"][t + 1 : t + 1 + interval_h])
        assert known.order == (state.trades > before.trades)
        assert known.target == state.target
        if known.order:
            assert known.fill_time_utc == bars.index[t + 1 + row_of_fill[0]]
        else:
            assert known.fill_time_utc is None
            assert known.units == before.units == state.units
        if pause >= pd.Timedelta("2D"):  # the calendar knows the weekend
            weekends += 1
            assert vars(blind) == vars(known)
        elif (blind.target, blind.fill_time_utc) != (known.target, known.fill_time_utc):
            wrong_without.add(f"{bars.index[t].tz_convert('America/New_York'):%m-%d %H}")
    assert weekends == 3
    # The last bar before each hole; of two hours, only the first hole begins at the end of an interval.
    assert wrong_without == {1: {"11-07 16", "11-08 14", "11-14 09"}, 2: {"11-07 16"}}[interval_h]


def test_a_halt_of_a_day_is_over_at_the_next_open_of_an_exchange(decider):
    """After the close at 16:00 the next bar belongs to the next day."""
    decider, bars = decider
    local = bars.index.tz_convert("America/New_York")
    end = int(np.argmax(local.hour == 15)) + 1
    decider.spec = spec_of("AAPL", "equity")
    today = trading_day(bars.index[end - 1 : end], decider.spec)[0]
    state = account(50_000.0, units=-9e3, entry_price=1.1, last_target=-0.2)
    state.halted_until = today + 1
    free = decider.decide(bars.iloc[:end], state)
    opens = local[end - 1].normalize() + pd.Timedelta("1D9h")  # the bar from 9:00 to 10:00 has the open
    assert (free.order, free.target, free.fill_time_utc) == (True, free.action, opens)
    state.halted_until = today + 2
    halted = decider.decide(bars.iloc[:0], state)
    assert (halted.order, halted.target, halted.fill_time_utc) == (True, 0.0, free.fill_time_utc)
    with pytest.raises(DataError, match="next_open"):
        decider.decide(bars.iloc[:0], state, bars.index[end - 1])


def test_after_a_stop_a_flat_account_that_stays_flat_has_no_order(decider, monkeypatch):
    decider, bars = decider
    monkeypatch.setattr(decider, "_policy", lambda _: 0.0)
    stopped = account(50_000.0, last_target=9.0)  # no target is near the engine's mark of a closed position
    found = decider.decide(bars.iloc[:2], stopped)
    assert (found.order, found.target, found.units, found.fill_time_utc) == (False, 0.0, 0.0, None)


# -- features bar by bar


def test_eight_instruments_in_stretches_give_the_features_of_one_pass():
    names = ("EURUSD", "USDJPY", "GBPUSD", "USDCAD", "USDCHF", "EURGBP", "XAUUSD", "SPXUSD")
    bars = {name: make_bars(2600, seed=i, bar_seconds=900) for i, name in enumerate(names)}
    bars["SPXUSD"] = bars["SPXUSD"][np.random.default_rng(0).random(2600) > 0.1]  # pauses: it has an age
    own = bars["EURUSD"].index

    def part(first, end):
        return {n: b[(b.index >= own[first]) & (b.index <= own[end - 1])] for n, b in bars.items()}

    pipeline = FeaturePipeline(regimes=True)
    whole = pipeline.run_full_pipeline(part(0, 1500), part(1500, 2000), part(2000, 2600))
    with pytest.raises(CheckpointError, match=says("fitted")):
        pipeline.extend(part(0, 10), Memory())
    pipeline, memory, rows = FeaturePipeline.from_state(pipeline.state()), Memory(), []
    for first, end in [(0, 1), (1, 2), (2, 1000), (1000, 2300), *((i, i + 1) for i in range(2300, 2600))]:
        rows.append(pipeline.extend(part(first, end), memory))
    streamed, known = np.concatenate(rows), np.concatenate(whole)
    assert streamed.shape[1] == 29  # the regime and an age among them
    warm = int(np.isnan(known[:, 0]).sum())
    assert np.array_equal(streamed[warm:], known[warm:])


# -- reasons and refusals


@pytest.fixture
def decider(tmp_path):
    data = make_data(700)
    lively_agent(
        tmp_path / "agent.pt",
        data,
        1,
        TradingEnvConfig(stop_loss_bps=50, take_profit_bps=100, price_side="bid"),
    )
    decider = Decider.from_checkpoint(tmp_path / "agent.pt")
    decider.follow(history_of(data))
    return decider, data.test["EURUSD"]


def test_a_decision_says_size_levels_and_what_binds(decider):
    decider, bars = decider
    hours = bars.index.tz_convert("America/New_York").hour
    frozen = int(np.argmax(hours == 16))
    found = decider.decide(bars.iloc[:frozen], account(equity=50_000.0))
    close = bars["close"].iloc[frozen - 1]
    assert found.order
    assert found.exposure == pytest.approx(found.target, rel=1e-12)
    assert found.notional == pytest.approx(50_000.0 * found.target, rel=1e-12)
    assert found.units == pytest.approx(found.notional / close, rel=1e-4)
    sign = np.sign(found.target)
    assert found.stop_loss == pytest.approx(close * (1 - sign * 0.005), rel=2e-4)
    assert found.take_profit == pytest.approx(close * (1 + sign * 0.01), rel=2e-4)
    assert found.high_vol_prob is None
    assert not found.limits


def test_in_the_evening_freeze_a_decision_is_what_is_held(decider):
    """Fault A6: an order that would lapse is no decision."""
    decider, bars = decider
    frozen = int(np.argmax(bars.index.tz_convert("America/New_York").hour == 16))
    flat = decider.decide(bars.iloc[: frozen + 1], account(equity=50_000.0))  # 17:00 New York
    assert flat.open_time_utc == bars.index[frozen]
    assert (flat.order, flat.target, flat.units, flat.exposure, flat.stop_loss) == (False, 0, 0, 0, None)
    assert flat.action != 0.0
    assert "action" not in flat.plain()
    assert len(flat.limits) == 1
    held = decider.decide(bars.iloc[:0], account(50_000.0, units=-9e3, entry_price=1.1, last_target=-0.2))
    assert (held.order, held.target, held.units) == (False, -0.2, -9e3)
    assert held.stop_loss == pytest.approx(1.1 * 1.005)
    assert held.take_profit == pytest.approx(1.1 * 0.99)
    state = account(equity=50_000.0, units=-9e3, entry_price=1.1, last_target=-0.2)
    state.halted_until = np.inf
    again = decider.decide(bars.iloc[:0], state)
    assert (again.order, again.target, again.units) == (True, 0.0, 0.0)
    assert "halted" in again.limits[0]


def test_a_feature_beyond_all_bars_before_is_named_with_its_range(decider):
    decider, bars = decider
    assert not decider.decide(bars.iloc[:1], account(equity=1e5)).out_of_range
    jump = bars.iloc[1:2] * 1.2
    found = decider.decide(jump, account(equity=1e5)).out_of_range
    value, low, high = (
        found["eurusd_bollinger_4h"] if "eurusd_bollinger_4h" in found else found["eurusd_return_1h"]
    )
    assert value > high > low


def test_an_order_needs_the_account_as_the_agent_sees_it(decider):
    decider, bars = decider
    flat = decider.decide(bars.iloc[:30], account(equity=1e5))
    long = decider.decide(bars.iloc[:30], account(equity=1e5, units=8e4, entry_price=1.0, bars_held=9))
    assert flat.target != long.target


def test_what_cannot_be_decided_on_is_refused(decider, tmp_path):
    decider, bars = decider
    with pytest.raises(DataError, match=says("EURUSD", "GBPUSD")):
        decider.decide({"GBPUSD": bars}, account(equity=1e5))
    with pytest.raises(DataError, match=says("3600", "1800")):
        decider.decide(make_bars(40, bar_seconds=1800, start=bars.index[0].isoformat()), account(equity=1e5))
    decider.decide(bars.iloc[:3], account(equity=1e5))
    with pytest.raises(DataError, match=says("account")):
        decider.follow(bars.iloc[3:5])
    fresh = Decider.from_checkpoint(tmp_path / "agent.pt")
    with pytest.raises(DataError, match=says(48, 0)):
        fresh.decide(bars, account(equity=1e5))


def test_the_price_side_must_be_known(tmp_path):
    lively_agent(tmp_path / "agent.pt", make_data(700), 1, TradingEnvConfig())
    with pytest.raises(DataError, match=says("price", "side")):
        Decider.from_checkpoint(tmp_path / "agent.pt")


def test_the_lines_of_the_page_run_as_they_stand(tmp_path, monkeypatch, capsys):
    page = Path(__file__).resolve().parents[2] / "docs" / "use.md"
    (lines,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    data = make_data(700)
    write_processed(data, tmp_path / "data/processed/processed_data.h5")
    (tmp_path / "outputs").mkdir()
    lively_agent(tmp_path / "outputs/agent_1_final.pt", data, 1, TradingEnvConfig())
    monkeypatch.chdir(tmp_path)
    exec(compile(lines, str(page), "exec"), {})
    last = data.test["EURUSD"].index[-1]
    assert f"open_time_utc=Timestamp('{last:%Y-%m-%d %H:%M}" in capsys.readouterr().out
