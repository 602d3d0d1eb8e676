"""The account, bar by bar, against ledgers worked out by hand."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from sac_kernel.market import engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import prepare_market
from sac_kernel.market.records import (
    ACCOUNT_DTYPE,
    COSTS,
    MINUTE_DTYPE,
    PRICES,
    Account,
    Bar,
    Reward,
    Terms,
    Trace,
    blank,
    new_table,
)
from sac_kernel.prices.bars import Bars
from sac_kernel.stats import metrics

PAID = tuple(f"{kind}_paid" for kind in COSTS)
NO_MINUTES = np.empty((0, 0), MINUTE_DTYPE)
LONG, SHORT, FLAT = 1.0, -1.0, 0.0
BID, ASK, MID = 1.0, -1.0, 0.0


def table(rows, spread=0.0, nights=0, day=0):
    """Bars of (open, high, low, close) with one spread; swap nights fall inside a bar."""
    bars = new_table(Bar, len(rows))
    set_prices(bars, rows)
    bars["spread_open"] = bars["spread_close"] = spread
    bars["nights_bar"] = nights
    bars["tradable"] = 1.0
    bars["trading_day"] = day
    bars["volatility"] = 0.01
    bars["cap_share"] = 1.0
    return bars


def set_prices(bars, rows):
    for name, prices in zip(PRICES, np.transpose(rows), strict=True):
        bars[name] = prices


def columns(table, *names):
    """Fields of a table or of a record as plain numbers, one column a name."""
    return np.stack([table[name] for name in names], axis=-1)


def parameters(side=MID, cap=1.0, interval=1, **others):
    par = blank(Terms)
    par.price_side, par.exposure_cap, par.interval_bars = side, cap, interval
    par.close_out_margin = 1.0 / 60.0
    par.bars_per_day = 4
    for name, value in others.items():
        setattr(par, name, value)
    return par


def account(bars, par, t=0, left=1_000_000, equity=1000.0, action=FLAT):
    state = blank(Account)
    engine.reset(state, bars, par, t, left, equity, action)
    return state


def follow(bars, par, targets, minutes=NO_MINUTES, **start):
    """Return the account after each decision, the start first, and the rewards."""
    state = account(bars, par, **start)
    states, rewards = [state.copy()], []
    for target in targets:
        rewards.append(engine.step(state, bars, minutes, par, target))
        states.append(state.copy())
    return np.array(states, ACCOUNT_DTYPE), rewards


def flat_bar(price):
    return (price, price, price, price)


# -- the ledger

ROWS = [
    (1.00, 1.00, 1.00, 1.00),
    (1.00, 1.03, 1.00, 1.03),
    (1.04, 1.05, 1.04, 1.05),
    (1.00, 1.00, 0.97, 0.97),
    (0.98, 0.98, 0.96, 0.96),
    (0.95, 0.95, 0.94, 0.94),
]
LEDGER_TARGETS = [LONG, LONG, FLAT, -0.5, -0.5]
# Spread 2 % of the quoted price, commission .05 %, slippage .1 %; swap .04 % long, .02 % short; one night
# in the second bar held, three in the fourth. Bid bars, equity 1,010, in full:
#   1 buy   mid 1.01, 1,010 / 1.01 = 1,000 units at ask 1.02 + slippage .00101 = 1.02101, commission .505:
#           cash 1,010 - 1,021.01 - .505 = -11.515; worth at bid 1.03: 1,018.485
#   2 hold  one night on 1,000 x mid 1.0605 x .0004 = .4242: cash -11.9392; at bid 1.05: 1,038.0608
#   3 sell  1,000 at bid 1.00 - .00101 = .99899, commission .505: 986.5458
#   4 short half of 986.5458 / mid .9898 = 498.35613 units at bid .98 - .0009898, commission .24664; three
#           nights on 498.35613 x mid .9696 x .0002 = .28992: cash 1,473.90498; at ask .9792: 985.91465
#   5 hold  at ask .94 x 1.02 = .9588: 996.08112
# Ask bars: bid = ask x .98, mid = ask x .99, equity 990; mid bars: bid and ask at .99 and 1.01 of it.
LEDGER = {
    BID: [1010, 1018.485, 1038.0608, 986.5458, 985.914651892368, 996.081116996430],
    ASK: [990, 997.915, 1017.0992, 966.6142, 965.804433948326, 975.767474558510],
    MID: [1000, 1008.2, 1027.58, 976.58, 975.859523122449, 985.924276183673],
}
LEDGER_COSTS = {  # spread, commission, slippage, swap
    BID: [24.883890099010, 1.25663645, 2.5132729, 0.714123663673],
    ASK: [24.881889898990, 1.23165355, 2.4633071, 0.699866213878],
    MID: [24.8829, 1.244145, 2.48829, 0.706994938776],
}
CLOSED = {BID: 995.371408028062, ASK: 975.072104139122, MID: 985.221736489796}
SIDES = pytest.mark.parametrize("side", [BID, ASK, MID], ids=["bid", "ask", "mid"])


def ledger(side, close_at_end=0.0):
    bars = table(ROWS, spread=0.02)
    bars["nights_bar"][[2, 4]] = 1, 3
    par = parameters(
        side,
        commission=0.0005,
        slippage=0.001,
        swap_long=0.0004,
        swap_short=0.0002,
        close_at_end=close_at_end,
    )
    return follow(bars, par, LEDGER_TARGETS, equity=LEDGER[side][0])


@SIDES
def test_five_bars_agree_with_the_ledger(side):
    states, rewards = ledger(side)
    assert states["equity"] == pytest.approx(LEDGER[side], abs=1e-9)
    assert rewards == pytest.approx(np.diff(np.log(LEDGER[side])), abs=1e-12)


@SIDES
def test_five_bars_pay_what_the_ledger_says_by_kind(side):
    states, _ = ledger(side)
    paid = columns(states[-1], *PAID)
    assert paid == pytest.approx(LEDGER_COSTS[side], abs=1e-9)
    assert states["trades"][-1] == 3


@SIDES
def test_the_last_bar_closes_the_position_at_cost_when_asked(side):
    # The mark already stands at the closing side: what is added is slippage and commission.
    states, _ = ledger(side, close_at_end=1.0)
    assert states["equity"][-1] == pytest.approx(CLOSED[side], abs=1e-9)
    assert states["units"][-1] == 0.0
    assert states["trades"][-1] == 4
    assert states["truncated"][-1] == 1.0
    assert states["equity"][:-1] == pytest.approx(LEDGER[side][:-1], abs=1e-9)


@SIDES
def test_without_closing_the_last_bar_keeps_the_position(side):
    states, _ = ledger(side)
    assert states["units"][-1] < -490
    assert states["truncated"][-1] == 1.0


def test_equity_is_start_plus_price_moves_minus_costs_paid_once():
    rng = np.random.default_rng(0)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, 40)))
    rows = [(c, c * 1.001, c * 0.999, c) for c in close]
    bars, par = (
        table(rows, 0.001, nights=1),
        parameters(commission=2e-4, slippage=1e-4, swap_long=5e-5, swap_short=3e-5),
    )
    states, _ = follow(bars, par, [*rng.uniform(-1, 1, 38), FLAT])
    # Positions change at opens, which here equal closes: each earns its bar's open-to-close move and no more;
    # the close-to-open move is zero, so units held over the gap of close t to open t + 1 earn that bar's jump.
    units = np.concatenate(([0.0], states["units"][1:]))
    moves = sum(u * (close[i + 1] - close[i]) for i, u in enumerate(units[:-1]))
    paid = columns(states[-1], *PAID).sum()
    assert states["equity"][-1] == pytest.approx(1000.0 + moves - paid, abs=1e-9)
    assert paid > 5.0


def test_a_round_trip_at_an_unchanged_price_costs_two_ways_once():
    # 1,000 units: half spread .1 + slippage .2 + commission .3 each way, .6; the mark of the open position
    # stands another half spread lower. After the second .6 nothing more.
    bars = table([flat_bar(1.0)] * 7, 0.0002)
    states, _ = follow(bars, parameters(commission=3e-4, slippage=2e-4), [LONG, LONG, FLAT, FLAT, FLAT])
    assert states["equity"] == pytest.approx([1000, 999.3, 999.3, 998.8, 998.8, 998.8], abs=1e-9)


@pytest.mark.parametrize(
    ("costs", "spread", "lost"),
    [
        ({}, 0.0, 0.0),
        ({}, 0.002, 2.0),  # half of it on each fill and each mark: 1,000 x .001 in, the same out
        ({"commission": 0.001}, 0.0, 2.0),
        ({"slippage": 0.001}, 0.0, 2.0),
        ({"swap_long": 0.001}, 0.0, 4.0),  # two nights in each bar, two bars
        ({"swap_short": 0.001}, 0.0, 0.0),
    ],
)
def test_every_declared_cost_is_charged(costs, spread, lost):
    bars = table([flat_bar(1.0)] * 4, spread, nights=2)
    states, _ = follow(bars, parameters(**costs), [LONG, LONG, FLAT])
    assert states["equity"][-1] == pytest.approx(1000.0 - lost, abs=1e-9)


# -- the clock


def test_the_action_is_filled_at_the_next_open_not_at_the_close_seen():
    # 1,000 / 1.25 = 800 units from 1.25 to 1.50: +200. From the close seen, 1.00, it would be +500.
    bars = table([flat_bar(1.0), (1.25, 1.5, 1.25, 1.5)])
    states, _ = follow(bars, parameters(), [LONG])
    assert states["equity"][-1] == pytest.approx(1200.0, abs=1e-9)


def test_the_old_position_owns_the_gap_and_the_new_one_the_bar():
    # Long 1,000 from 1.00; gap to .90 costs 100; then short 900 / .9 = 1,000 from .90 to .80 earns 100.
    bars = table([flat_bar(1.0), flat_bar(1.0), (0.9, 0.9, 0.8, 0.8)])
    states, _ = follow(bars, parameters(), [LONG, SHORT])
    assert states["equity"] == pytest.approx([1000, 1000, 1000], abs=1e-9)
    assert states["units"][-1] == pytest.approx(-1000.0, abs=1e-9)


def test_the_first_action_is_followed():
    bars = table([flat_bar(1.0), (1.0, 1.1, 1.0, 1.1)])
    _, rewards = follow(bars, parameters(), [LONG])
    assert rewards == pytest.approx([math.log(1.1)], abs=1e-12)


def test_the_observation_knows_nothing_of_the_next_bar():
    market = np.arange(12, dtype=np.float32).reshape(4, 3)
    bars, edited = table(ROWS[:4], 0.001), table(ROWS[:4], 0.001)
    for name in PRICES:
        edited[name][3:] *= 3.0
    edited["spread_open"][3:], edited["volatility"][3:], edited["tradable"][3:] = 0.5, 9.0, 0.0
    seen = []
    for version in (bars, edited):
        out = np.full(6, np.nan, np.float32)
        states, _ = follow(version, parameters(), [LONG, LONG])
        engine.observe(states[-1], version, parameters(), market, out)
        seen.append(out)
    assert np.array_equal(*seen)
    assert seen[0][:3].tolist() == [6.0, 7.0, 8.0]


def test_the_sign_of_the_last_bar_says_nothing_about_the_bar_traded():
    # A random walk whose opens are the closes before. Known signs of the traded bar would hit always.
    rng = np.random.default_rng(1)
    close = np.exp(np.cumsum(rng.normal(0, 0.001, 20_001)))
    before = np.concatenate(([1.0], close[:-1]))
    bars = table(np.stack((before, np.maximum(before, close), np.minimum(before, close), close), axis=1))
    sign = np.sign(close - before)
    trace = new_table(Trace, 20_000)
    state = account(bars, parameters())
    engine.run_targets(state, bars, NO_MINUTES, parameters(), sign[:-1], trace)
    seen = np.mean(np.diff(np.log(trace["equity"]), prepend=np.log(1000.0)) > 0)
    assert seen == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(20_000))
    state = account(bars, parameters())
    engine.run_targets(state, bars, NO_MINUTES, parameters(), sign[1:], trace)
    assert np.all(np.diff(np.log(trace["equity"])) > 0)  # with foresight it does hit always


# -- the position


def test_an_unchanged_target_is_held_and_not_rebalanced():
    bars = table([flat_bar(p) for p in (1.0, 1.0, 1.2, 0.9, 1.1)])
    states, _ = follow(bars, parameters(commission=0.001), [0.5, 0.5, 0.5, 0.5])
    assert states["units"][1:].tolist() == [500.0] * 4
    assert states["trades"][-1] == 1
    assert states["turnover"][-1] == pytest.approx(0.5, abs=1e-12)


def test_turnover_is_the_change_of_exposure():
    # .5 from flat; a move to .5 x 1.2 / 1.1 of equity; then to -1: .5454545 + 1; then flat: 1.
    bars = table([flat_bar(p) for p in (1.0, 1.0, 1.2, 1.2, 1.2)])
    states, _ = follow(bars, parameters(), [0.5, -1.0, 0.0])
    assert states["turnover"][1:] == pytest.approx([0.5, 2.0454545454545, 3.0454545454545], abs=1e-12)


@pytest.mark.parametrize(("action", "units"), [(1.7, 1000.0), (-99.0, -1000.0), (0.25, 250.0)])
def test_a_target_beyond_one_is_one(action, units):
    states, _ = follow(table([flat_bar(1.0)] * 2), parameters(), [action])
    assert states["units"][-1] == units


def test_exposure_is_the_target_times_the_cap():
    states, _ = follow(table([flat_bar(2.0)] * 2), parameters(cap=10.0), [-0.5])
    assert states["units"][-1] == pytest.approx(-0.5 * 10 * 1000 / 2, abs=1e-9)


def test_changing_size_through_a_fall_does_not_delete_the_loss():
    # 4.6 % down in four steps of 1.15, the size halved and restored on the way; entry prices must not
    # swallow it: 1,000 units lose 11.5, 500 lose 5.75, then about 1,000 and 500 again.
    prices = [1.0, 1.0, 0.9885, 0.977, 0.9655, 0.954]
    bars = table([flat_bar(prices[0])] + [(p, p, n, n) for p, n in pairwise(prices)])
    states, _ = follow(bars, parameters(), [LONG, LONG, 0.5, LONG, 0.5])
    # By hand: 1,000 -> 988.5; half: 500 units (988.5 x .5 / .9885) -> 982.75;
    # full: 982.75 / .977 = 1,005.8853 units -> 971.182318; half: 971.182318 x .5 / .9655 = 502.942681 units
    # -> 965.398477.
    expected = [1000, 1000, 988.5, 982.75, 971.182318321, 965.398477486]
    assert states["equity"] == pytest.approx(expected, abs=1e-6)


def test_the_entry_price_averages_what_was_added_and_keeps_through_a_reduction():
    # 500 at 1.0, then up to equity 1,100 / 1.2 = 916.67 units: (500 x 1.0 + 416.67 x 1.2) / 916.67.
    bars = table([flat_bar(p) for p in (1.0, 1.0, 1.2, 1.3, 1.3)])
    states, _ = follow(bars, parameters(), [0.5, 1.0, 0.25, -0.5])
    average = (500 * 1.0 + (1100 / 1.2 - 500) * 1.2) / (1100 / 1.2)
    assert states["entry_price"][1:] == pytest.approx([1.0, average, average, 1.3], abs=1e-12)


def test_bars_held_count_from_the_opening_or_the_turn():
    bars = table([flat_bar(1.0)] * 8)
    states, _ = follow(bars, parameters(), [0.5, 0.5, 1.0, -1.0, -1.0, 0.0, 1.0])
    assert states["bars_held"][1:].tolist() == [1, 2, 3, 1, 2, 0, 1]


def test_reward_is_paid_while_the_position_is_open():
    bars = table([flat_bar(1.0), flat_bar(1.0), (1.0, 1.1, 1.0, 1.1), (1.1, 1.1, 0.9, 0.9)])
    _, rewards = follow(bars, parameters(), [LONG] * 3)
    assert rewards == pytest.approx([0.0, math.log(1.1), math.log(0.9 / 1.1)], abs=1e-12)


@pytest.mark.parametrize("action", [0.7, -0.4, 0.0])
def test_a_start_with_a_position_is_worth_its_equity_and_earns_at_once(action):
    bars = table([flat_bar(1.0), flat_bar(1.1)])
    states, _ = follow(bars, parameters(), [action], action=action)
    assert states["equity"] == pytest.approx([1000.0, 1000.0 + action * 100.0], abs=1e-9)
    assert states["trades"][-1] == 0


# -- the observation of the account


def observed(states, bars, par):
    out = np.zeros(3, np.float32)
    engine.observe(states[-1], bars, par, np.zeros((len(bars), 0), np.float32), out)
    return out


def test_account_features_by_hand():
    # Long 10,000 from 1.00 to 1.03 at a cap of 10: equity 1,300, notional 10,300: 7.923 of a cap of 10.
    # Profit 300 / 1,300 over sigma .01 x sqrt(4 bars) = 11.5, clipped to 5. One bar held: ln 2 / 5.
    bars, par = table(ROWS[:2]), parameters(cap=10.0)
    states, _ = follow(bars, par, [LONG])
    assert observed(states, bars, par) == pytest.approx([10.3 / 13, 5.0, math.log(2) / 5], abs=1e-6)
    # The same at a cap of 1: 1,030 / 1,030 and 30 / 1,030 / .02 = 1.456311.
    states, _ = follow(bars, parameters(), [LONG])
    assert observed(states, bars, parameters()) == pytest.approx([1.0, 1.456311, math.log(2) / 5], abs=1e-6)


def test_a_short_in_profit_shows_a_profit():
    bars = table([flat_bar(1.0), (1.0, 1.0, 0.99, 0.99)])
    states, _ = follow(bars, parameters(), [SHORT])
    assert observed(states, bars, parameters())[:2] == pytest.approx(
        [-0.990 / 1.010, 10 / 1010 / 0.02], abs=1e-6
    )


@pytest.mark.parametrize("cap", [0.5, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("action", [1.0, -1.0])
def test_a_full_position_is_one_at_any_cap(cap, action):
    bars = table([flat_bar(1.0)] * 2)
    states, _ = follow(bars, parameters(cap=cap), [action])
    assert observed(states, bars, parameters(cap=cap))[0] == pytest.approx(action, abs=1e-6)


def test_a_flat_account_shows_nothing():
    bars = table([flat_bar(1.0)] * 3)
    states, _ = follow(bars, parameters(), [LONG, FLAT])
    assert observed(states, bars, parameters()).tolist() == [0.0, 0.0, 0.0]


# -- stop loss and take profit: entry at 1.00 with 1,000 units, stop at 1 %, profit at 2 %


def overlay(row, target, side=MID, spread=0.0, **costs):
    bars = table([flat_bar(1.0), flat_bar(1.0), row, flat_bar(row[3])], spread)
    par = parameters(side, stop_loss=0.01, take_profit=0.02, **costs)
    return follow(bars, par, [target, target])[0][-1]


@pytest.mark.parametrize(
    ("target", "row", "price"),
    [
        (LONG, (1.00, 1.005, 0.985, 1.00), 0.99),  # the stop
        (LONG, (1.00, 1.030, 0.995, 1.00), 1.02),  # the profit
        (LONG, (1.00, 1.030, 0.985, 1.02), 0.99),  # both: the stop first
        (LONG, (0.97, 1.000, 0.960, 0.99), 0.97),  # gap through the stop: the open
        (LONG, (1.04, 1.050, 1.030, 1.05), 1.04),  # gap through the profit: the open
        (LONG, (1.00, 1.005, 0.990, 1.00), 0.99),  # touched exactly
        (LONG, (1.00, 1.020, 0.995, 1.00), 1.02),
        (SHORT, (1.00, 1.015, 0.995, 1.00), 1.01),
        (SHORT, (1.00, 1.005, 0.970, 1.00), 0.98),
        (SHORT, (1.00, 1.015, 0.970, 0.98), 1.01),
        (SHORT, (1.03, 1.040, 1.000, 1.01), 1.03),
        (SHORT, (0.96, 0.970, 0.950, 0.95), 0.96),
        (SHORT, (1.00, 1.010, 0.995, 1.00), 1.01),
        (SHORT, (1.00, 1.005, 0.980, 1.00), 0.98),
    ],
)
def test_stop_and_profit_fill_at_their_level_or_at_the_open(target, row, price):
    state = overlay(row, target)
    assert state.equity == pytest.approx(1000.0 + target * 1000.0 * (price - 1.0), abs=1e-9)
    assert state.units == 0.0
    assert state.trades == 2
    assert state.turnover == pytest.approx(1.0 + price, abs=1e-9)  # 1,000 in, 1,000 x price out


@pytest.mark.parametrize(
    ("target", "row"), [(LONG, (1.00, 1.019, 0.9901, 1.01)), (SHORT, (1.00, 1.0099, 0.9801, 0.99))]
)
def test_untouched_levels_leave_the_position(target, row):
    state = overlay(row, target)
    assert state.units == target * 1000.0
    assert state.equity == pytest.approx(1010.0, abs=1e-9)


def test_both_off_leaves_every_position():
    bars = table([flat_bar(1.0), flat_bar(1.0), (1.0, 2.0, 0.5, 1.0)])
    states, _ = follow(bars, parameters(), [LONG, LONG])
    assert states["units"][-1] == 1000.0


def test_a_stop_is_slipped_and_a_profit_is_not():
    # Slippage .1 %: bought at 1.001, cash -1. Stop at .99099, sold at .98999901: 988.99901.
    # Profit at 1.02102, a limit order: 1,020.02.
    stopped = overlay((1.0, 1.005, 0.985, 1.0), LONG, slippage=0.001)
    assert stopped.equity == pytest.approx(988.99901, abs=1e-9)
    taken = overlay((1.0, 1.03, 0.995, 1.0), LONG, slippage=0.001)
    assert taken.equity == pytest.approx(1020.02, abs=1e-9)


def test_a_short_on_bid_bars_is_stopped_by_the_ask():
    # Spread .2 %: mid 1.001, sold 1,000 / 1.001 = 999.000999 at bid 1.00, stop at ask 1.01, that is bid
    # 1.00798. A high of 1.0080 has ask 1.010016: stopped at 1.01, 9.99001 lost. 1.0079 has 1.0099158: not.
    stopped = overlay((1.0, 1.0080, 0.995, 1.0), SHORT, BID, 0.002)
    assert stopped.units == 0.0
    assert stopped.equity == pytest.approx(1000 - 0.01 * 999.000999001, abs=1e-8)
    assert overlay((1.0, 1.0079, 0.995, 1.0), SHORT, BID, 0.002).units < -999.0


def test_a_long_on_bid_bars_is_stopped_by_the_bid():
    # Bought at ask 1.002: stop at .99198.
    assert overlay((1.0, 1.005, 0.9920, 1.0), LONG, BID, 0.002).units > 999.0
    stopped = overlay((1.0, 1.005, 0.9919, 1.0), LONG, BID, 0.002)
    assert stopped.units == 0.0
    assert stopped.equity == pytest.approx(1000 - 0.01002 * 999.000999001, abs=1e-8)


def test_a_long_on_ask_bars_is_stopped_by_the_bid():
    # Bought at ask 1.00, stop at bid .99, that is ask .99 / .998 = .991984.
    assert overlay((1.0, 1.005, 0.9920, 1.0), LONG, ASK, 0.002).units > 999.0
    assert overlay((1.0, 1.005, 0.9919, 1.0), LONG, ASK, 0.002).units == 0.0


def test_a_position_opened_at_this_open_can_be_stopped_in_this_bar():
    bars = table([flat_bar(1.0), (1.0, 1.005, 0.985, 1.0)])
    states, _ = follow(bars, parameters(stop_loss=0.01), [LONG])
    assert columns(states[-1], "units", "equity") == pytest.approx([0.0, 990.0], abs=1e-9)


def test_a_turn_at_the_open_comes_before_the_bars_own_stop():
    # The long of the bar before is turned at the open, 1.00: its stop at .99 cannot be hit later in the bar,
    # and the short, stop 1.01, is not touched by a high of 1.005. Short 1,000 from 1.00 to .985: +15.
    bars = table([flat_bar(1.0), flat_bar(1.0), (1.0, 1.005, 0.985, 0.985)])
    states, _ = follow(bars, parameters(stop_loss=0.01), [LONG, SHORT])
    assert columns(states[-1], "units", "equity") == pytest.approx([-1000.0, 1015.0], abs=1e-9)


def test_nothing_is_opened_in_the_bar_after_its_stop_and_the_next_open_may_enter_again():
    rows = [flat_bar(1.0), flat_bar(1.0), (1.0, 1.0, 0.98, 0.98), flat_bar(0.9)]
    states, _ = follow(table(rows), parameters(stop_loss=0.01), [LONG, LONG, LONG])
    assert columns(states[2], "units", "equity") == pytest.approx([0.0, 990.0], abs=1e-9)
    # The unchanged target is given again at the next open: 990 / .9 = 1,100 units.
    assert columns(states[3], "units", "equity") == pytest.approx([1100.0, 990.0], abs=1e-9)


def test_exits_work_while_exposure_is_frozen():
    bars = table([flat_bar(1.0), flat_bar(1.0), (1.0, 1.005, 0.985, 1.0), flat_bar(1.0)])
    bars["tradable"][2:] = 0.0
    states, _ = follow(bars, parameters(stop_loss=0.01), [LONG, LONG, LONG])
    assert states["units"][2:].tolist() == [0.0, 0.0]


# -- margin close-out and ruin at 30x: 30,000 units from 1.00, cash -29,000 (short: 31,000)

# Equity = notional / 60: long 30,000 p - 29,000 = 500 p, p = 29,000 / 29,500 = .983051, equity 491.525424;
# short 31,000 - 30,000 p = 500 p, p = 31,000 / 30,500 = 1.016393, equity 508.196721.
LEVEL_LONG, LEFT_LONG = 0.983050847458, 491.525423729
LEVEL_SHORT, LEFT_SHORT = 1.016393442623, 508.196721311


def levered(row, target, **others):
    bars = table([flat_bar(1.0), flat_bar(1.0), row, flat_bar(row[3]), flat_bar(row[3])])
    return follow(bars, parameters(cap=30.0, **others), [target, target, FLAT, FLAT])


@pytest.mark.parametrize(
    ("target", "row", "equity"),
    [
        (LONG, (1.00, 1.00, 0.980, 0.99), LEFT_LONG),
        (SHORT, (1.00, 1.02, 1.000, 1.01), LEFT_SHORT),
        (LONG, (0.975, 0.98, 0.970, 0.98), 250.0),  # gap: 30,000 x .975 - 29,000
        (SHORT, (1.025, 1.03, 1.000, 1.00), 250.0),
    ],
)
def test_margin_close_out_flattens_and_the_episode_goes_on(target, row, equity):
    states, rewards = levered(row, target)
    after = states[2]
    assert after.equity == pytest.approx(equity, abs=1e-6)
    assert columns(after, "units", "terminated", "truncated").tolist() == [0.0, 0.0, 0.0]
    assert after.close_outs == 1
    assert rewards[1] == pytest.approx(math.log(equity / 1000.0), abs=1e-8)
    assert states["equity"][-1] == pytest.approx(equity, abs=1e-6)


@pytest.mark.parametrize(
    ("target", "row"), [(LONG, (1.0, 1.0, 0.98306, 0.99)), (SHORT, (1.0, 1.01639, 1.0, 1.01))]
)
def test_just_above_the_margin_the_position_stays(target, row):
    states, _ = levered(row, target)
    assert states["units"][2] == pytest.approx(target * 30_000, abs=1e-6)
    assert states["close_outs"][2] == 0


def test_a_tighter_stop_comes_before_the_margin():
    states, _ = levered((1.0, 1.0, 0.97, 0.99), LONG, stop_loss=0.01)
    assert states["equity"][2] == pytest.approx(700.0, abs=1e-6)  # 30,000 x .01 lost
    assert states["close_outs"][2] == 0


def test_a_wider_stop_comes_after_the_margin():
    states, _ = levered((1.0, 1.0, 0.94, 0.99), LONG, stop_loss=0.05)
    assert states["equity"][2] == pytest.approx(LEFT_LONG, abs=1e-6)
    assert states["close_outs"][2] == 1


def test_an_unlevered_long_is_never_closed_out():
    bars = table([flat_bar(1.0), flat_bar(1.0), (1.0, 1.0, 0.05, 0.05)])
    states, _ = follow(bars, parameters(), [LONG, LONG])
    assert columns(states[-1], "units", "close_outs").tolist() == [1000.0, 0.0]


@pytest.mark.parametrize(
    ("opened", "equity", "terminated"),
    [
        (0.96704, 11.2, 0.0),  # 30,000 x .96704 - 29,000 = 11.2 of 1,000: above 1 %
        (0.96696, 8.8, 1.0),
        (0.95000, 1.0, 1.0),  # 500 below zero: the balance is protected at .1 % of the start
    ],
)
def test_ruin_below_one_percent_terminates_with_a_finite_reward(opened, equity, terminated):
    states, rewards = levered(flat_bar(opened), LONG)
    assert columns(states[2], "equity", "terminated") == pytest.approx([equity, terminated], abs=1e-6)
    assert rewards[1] == pytest.approx(math.log(equity / 1000.0), abs=1e-6)
    assert states["units"][2] == 0.0


def test_drawdown_is_the_largest_fall_of_the_marks():
    bars = table([flat_bar(p) for p in (1.0, 1.0, 1.2, 0.9, 1.1, 1.0)])
    states, _ = follow(bars, parameters(), [LONG] * 5)
    # Marks 1,000 1,000 1,200 900 1,100 1,000: 300 / 1,200.
    assert states["max_drawdown"][-1] == pytest.approx(0.25, abs=1e-12)
    assert states["peak_equity"][-1] == pytest.approx(1200.0, abs=1e-9)


# -- the end of an episode and the decision interval


def test_an_episode_is_cut_after_its_bars_and_never_both_ended_and_ruined():
    bars = table([flat_bar(1.0)] * 10)
    states, _ = follow(bars, parameters(), [FLAT] * 3, left=3)
    assert states["truncated"].tolist() == [0, 0, 0, 1]
    assert states["bars_left"].tolist() == [3, 2, 1, 0]
    assert states["t"].tolist() == [0, 1, 2, 3]
    assert states["terminated"][-1] == 0


def test_the_end_of_the_bars_cuts_the_episode():
    states, _ = follow(table([flat_bar(1.0)] * 3), parameters(), [FLAT] * 2)
    assert states["truncated"].tolist() == [0, 0, 1]


@pytest.mark.parametrize("left", [1_000_000, 7])
def test_a_decision_interval_sums_the_rewards_of_its_bars(left):
    rng = np.random.default_rng(2)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, 8)))
    rows = [(c * 1.002, c * 1.01, c * 0.99, c) for c in close]
    bars, costs = table(rows, 0.001), {"commission": 1e-4, "swap_long": 1e-4, "swap_short": 1e-4}
    long_way, each = follow(bars, parameters(**costs), np.repeat([0.8, -0.3, 1.0], [3, 3, 1]), left=left)
    short_way, sums = follow(bars, parameters(interval=3, **costs), [0.8, -0.3, 1.0], left=left)
    assert sums == pytest.approx([sum(each[:3]), sum(each[3:6]), each[6]], abs=1e-12)
    assert short_way["t"].tolist() == [0, 3, 6, 7]
    assert short_way[-1] == pytest.approx(long_way[-1], abs=1e-12)


def test_a_decision_interval_ends_early_with_its_episode():
    bars = table([flat_bar(1.0)] * 10)
    states, _ = follow(bars, parameters(interval=4), [FLAT, FLAT], left=6)
    assert states["t"].tolist() == [0, 4, 6]
    assert states["truncated"][-1] == 1


def test_daily_statistics_are_those_of_the_equity_curve():
    rng = np.random.default_rng(3)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, 120)))
    bars = table([flat_bar(c) for c in close], 0.001)
    bars["trading_day"] = np.arange(120) // 4
    par = parameters(close_at_end=1.0)
    states, _ = follow(bars, par, rng.uniform(-1, 1, 119))
    daily = metrics.daily_returns(states["equity"][1:], bars["trading_day"][1:].astype(int), 1000.0)
    days, mean, m2 = columns(states[-1], "days", "daily_return_mean", "daily_return_m2")
    assert days == daily.size == 30
    assert mean == pytest.approx(daily.mean(), abs=1e-14)
    assert m2 / 29 == pytest.approx(daily.var(ddof=1), abs=1e-14)


def test_a_day_that_ended_before_the_first_bar_held_is_not_counted():
    bars = table([flat_bar(1.0)] * 7)
    bars["trading_day"] = [0, 1, 1, 2, 2, 3, 3]  # the account starts at the last close of day 0
    states, _ = follow(bars, parameters(), [FLAT] * 6)
    assert states["days"].tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_a_ruined_account_that_closes_at_its_end_has_counted_its_last_day():
    bars = table([flat_bar(p) for p in (1.0, 1.0, 1.0, 0.96, 0.96)])
    bars["trading_day"] = [0, 0, 1, 1, 1]
    states, _ = follow(bars, parameters(cap=30.0, close_at_end=1.0), [LONG] * 3)
    # Day 0 is flat; day 1 ends at the protected .1 %.
    assert columns(states[-1], "terminated", "days").tolist() == [1.0, 2.0]
    assert states["daily_return_mean"][-1] == pytest.approx((0.0 - 0.999) / 2, abs=1e-12)


# -- an order that has to wait


def frozen_bars(n, *frozen):
    bars = table([flat_bar(1.0)] * n)
    bars["tradable"][list(frozen)] = 0.0
    return bars


def test_an_order_in_the_freeze_fills_at_the_first_tradable_open_of_its_interval():
    # Interval of four: bars 1 and 2 are frozen; bar 3 opens at 1.25: 800 units, 1.50 at the close of bar 4.
    bars = frozen_bars(9, 1, 2)
    set_prices(bars[3:4], [(1.25, 1.25, 1.25, 1.25)])
    set_prices(bars[4:5], [(1.25, 1.5, 1.25, 1.5)])
    states, rewards = follow(bars, parameters(interval=4), [LONG])
    assert columns(states[-1], "units", "equity", "trades", "bars_held").tolist() == [800.0, 1200.0, 1.0, 2.0]
    assert rewards == pytest.approx([math.log(1.2)], abs=1e-12)


def test_an_order_lapses_with_its_interval():
    bars = frozen_bars(9, 1, 2, 3, 4)
    states, _ = follow(bars, parameters(interval=2), [LONG, LONG, FLAT, LONG])
    assert states["units"].tolist() == [0, 0, 0, 0, 1000]


def test_a_waiting_order_does_not_hold_back_the_stop_of_the_old_position():
    # Long from bar 1. An order to go short meets the freeze in bars 3 and 4; the long is stopped in bar 3 at
    # .99, and the order sells 990 / 1.00 at the open of bar 5.
    bars = frozen_bars(7, 3, 4)
    bars["low"][3] = 0.98
    states, _ = follow(bars, parameters(interval=2, stop_loss=0.01), [LONG, SHORT, SHORT])
    assert columns(states[2], "units", "equity").tolist() == [0.0, 990.0]
    assert states["units"][3] == pytest.approx(-990.0)
    # An interval that reaches past the freeze: the same order fills within it.
    states, _ = follow(bars, parameters(interval=6, stop_loss=0.01), [SHORT])
    assert states["trades"][-1] == 1


def test_a_change_below_the_least_order_is_held_and_measured_from_the_last_fill():
    # 0.5 is filled; 0.55 and 0.45 are nearer than 0.1 and hold; 0.58 as well, since it is 0.08 from what was filled;
    # 0.39 is not and fills; 0.31 is nearer to that; after a stop any target is an order.
    bars = table([flat_bar(1.0)] * 7)
    states, _ = follow(bars, parameters(no_trade_band=0.1), [0.5, 0.55, 0.45, 0.58, 0.39, 0.31])
    assert states["units"][1:] == pytest.approx([500, 500, 500, 500, 390, 390], abs=1e-9)
    assert states["trades"][-1] == 2
    stopped = table([flat_bar(1.0), flat_bar(1.0), (1.0, 1.0, 0.9, 0.95), flat_bar(0.95)])
    states, _ = follow(stopped, parameters(no_trade_band=0.1, stop_loss=0.05), [0.5, 0.5, 0.05])
    assert states["units"][2] == 0.0
    assert states["units"][3] == pytest.approx(0.05 * states["equity"][2] / 0.95)


def test_an_unchanged_target_is_no_order_that_could_wait():
    # Stopped in the frozen bar 3; the decision before it repeated its target, so nothing waits for bar 5.
    bars = frozen_bars(8, 3, 4)
    bars["low"][3] = 0.98
    states, _ = follow(bars, parameters(interval=2, stop_loss=0.01), [LONG])
    state = states[-1].copy()
    longer = parameters(interval=4, stop_loss=0.01)
    engine.step(state, bars, NO_MINUTES, longer, LONG)
    assert columns(state, "t", "units").tolist() == [6.0, 0.0]


# -- size and impact


def test_the_size_known_at_the_close_before_the_fill_scales_the_exposure():
    bars = table([flat_bar(1.0)] * 4)
    bars["cap_share"] = [0.25, 0.5, 1.0, 1.0]
    states, _ = follow(bars, parameters(cap=4.0), [LONG, LONG, SHORT])
    # 4 x .25 at the first fill; held though the size changes; then 4 x 1 short.
    assert states["units"][1:].tolist() == [1000.0, 1000.0, -4000.0]
    assert account(bars, parameters(cap=4.0), t=1, action=-0.5).units == -1000.0


def test_impact_is_the_square_root_of_the_units_at_a_days_volatility():
    # Day sigma .01 x sqrt(4) = .02; 1e-3 x .02 x sqrt(1,000 units) = 6.3246e-4 of price, on 1,000: .63246.
    bars = table([flat_bar(1.0)] * 3)
    states, _ = follow(bars, parameters(impact=1e-3), [LONG, FLAT])
    assert states["slippage_paid"][1:] == pytest.approx([0.632455532, 1.264911064], abs=1e-9)
    assert states["equity"][-1] == pytest.approx(1000 - 1.264911064, abs=1e-9)


def test_a_stop_has_impact_and_a_profit_has_none():
    # d = 6.3246e-4 as above: bought at 1 + d. Stopped at .99 of that less d of it; the profit sells at 1.02 of it.
    d = 1e-3 * 0.02 * math.sqrt(1000)
    stopped = overlay((1.0, 1.005, 0.985, 1.0), LONG, impact=1e-3)
    assert stopped.equity == pytest.approx(1000 + 1000 * (1 + d) * (0.99 * (1 - d) - 1), abs=1e-9)
    taken = overlay((1.0, 1.03, 0.995, 1.0), LONG, impact=1e-3)
    assert taken.equity == pytest.approx(1000 + 20 * (1 + d), abs=1e-9)


def test_impact_grows_with_size_and_splitting_makes_it_no_dearer_a_unit():
    paid = []
    for action in (0.25, 0.5, 1.0):
        states, _ = follow(table([flat_bar(1.0)] * 2), parameters(impact=1e-3), [action])
        paid.append(states["slippage_paid"][-1])
    assert paid == sorted(paid)
    assert paid[2] / paid[0] == pytest.approx(4**1.5, rel=1e-12)


def test_the_volatility_of_the_impact_is_known_before_the_fill():
    bars = table([flat_bar(1.0)] * 3)
    edited = bars.copy()
    edited["volatility"][1:] = 5.0
    before, after = (follow(b, parameters(impact=1e-3), [LONG])[0][-1] for b in (bars, edited))
    assert before.equity == after.equity


# -- minutes: entry at 1.00, stop at .99, profit at 1.02, bar 2 in three minutes of (open, high, low)


def in_minutes(row, minutes, target=LONG):
    bars = table([flat_bar(1.0), flat_bar(1.0), row, flat_bar(row[3])])
    inside = np.full((4, 3), np.nan, MINUTE_DTYPE)
    inside[2] = minutes
    par = parameters(stop_loss=0.01, take_profit=0.02)
    return follow(bars, par, [target, target], inside)[0][-1]


NO_MINUTE = (np.nan, np.nan, np.nan)


@pytest.mark.parametrize(
    ("minutes", "price"),
    [
        ([(1.0, 1.03, 0.995), (1.01, 1.01, 0.98), (0.99, 1.0, 0.99)], 1.02),  # the profit came first
        ([(1.0, 1.005, 0.98), (0.99, 1.03, 0.99), (1.0, 1.0, 1.0)], 0.99),
        ([(1.0, 1.01, 0.995), (1.0, 1.03, 0.98), (1.0, 1.0, 1.0)], 0.99),  # both in one minute: the stop
        ([(1.0, 1.01, 0.995), NO_MINUTE, (0.985, 1.03, 0.98)], 0.985),  # gap through the stop between minutes
        ([(1.0, 1.01, 0.995), (1.03, 1.03, 0.98), (1.0, 1.0, 1.0)], 0.99),
        ([NO_MINUTE, NO_MINUTE, NO_MINUTE], 0.99),  # not known: the bar's rule
    ],
)
def test_minutes_tell_which_level_was_touched_first(minutes, price):
    state = in_minutes((1.0, 1.03, 0.98, 1.0), minutes)
    assert state.units == 0.0
    assert state.equity == pytest.approx(1000.0 * price, abs=1e-9)


def test_minutes_of_a_short():
    row = (1.0, 1.02, 0.97, 1.0)
    first_profit = in_minutes(row, [(1.0, 1.0, 0.97), (0.98, 1.02, 0.98), (1.0, 1.0, 1.0)], SHORT)
    first_stop = in_minutes(row, [(1.0, 1.02, 1.0), (1.0, 1.0, 0.97), (1.0, 1.0, 1.0)], SHORT)
    assert [s.equity for s in (first_profit, first_stop)] == pytest.approx([1020.0, 990.0], abs=1e-9)


# -- rewards


def test_the_mean_variance_reward_takes_half_lambda_times_the_square():
    bars = table([flat_bar(1.0), (1.0, 1.1, 1.0, 1.1), (1.1, 1.1, 0.9, 0.9)])
    _, rewards = follow(bars, parameters(reward=Reward.MEAN_VARIANCE, risk_aversion=3.0), [LONG, LONG])
    # ln 1.1 = .0953102, square .00908403; ln(.9 / 1.1) = -.2006707, square .04026873.
    assert rewards == pytest.approx([0.0816841, -0.2610738], abs=1e-7)


def test_the_differential_sharpe_ratio_by_hand():
    # dA .019, dB 0: .0004 x .019 / .000399^1.5.
    value, a, b = engine.differential_sharpe(0.001, 0.0004, 0.02, 0.1, 0.0)
    assert (value, a, b) == pytest.approx((0.9535736, 0.0029, 0.0004), abs=1e-7)
    # dA -.0129, dB -.0003: (-5.16e-6 + 4.35e-7) / .00039159^1.5.
    value, a, b = engine.differential_sharpe(a, b, -0.01, 0.1, 0.0)
    assert (value, a, b) == pytest.approx((-0.6097537, 0.00161, 0.00037), abs=1e-7)


@pytest.mark.parametrize("change", [0.03, -0.02, 0.0])
def test_the_differential_sharpe_ratio_is_the_derivative_of_the_sharpe_ratio(change):
    a, b, eta = 0.002, 0.0005, 1e-7

    def sharpe(rate):
        first, second = a + rate * (change - a), b + rate * (change**2 - b)
        return first / math.sqrt(second - first**2)

    value, *_ = engine.differential_sharpe(a, b, change, 0.1, 0.0)
    assert value == pytest.approx((sharpe(eta) - sharpe(-eta)) / (2 * eta), rel=1e-6)


def test_the_differential_sharpe_reward_starts_at_the_volatility_of_a_full_position():
    # A 0, B (cap 2 x .01)^2 x 1 bar = 4e-4: D = R / .02 with R = ln 1.2; eta .1.
    bars = table([flat_bar(1.0), (1.0, 1.1, 1.0, 1.1), flat_bar(1.1)])
    par = parameters(cap=2.0, reward=Reward.DIFFERENTIAL_SHARPE, sharpe_rate=0.1)
    states, rewards = follow(bars, par, [LONG, LONG])
    change = math.log(1.2)
    assert rewards[0] == pytest.approx(change / 0.02, rel=1e-12)
    first, second = 0.1 * change, 0.9 * 4e-4 + 0.1 * change**2
    assert columns(states[1], "reward_mean", "reward_square") == pytest.approx([first, second], rel=1e-12)
    # Nothing moves in bar 2: R = 0, dA = -A, dB = -B: D = -A B / 2 / (B - A^2)^1.5.
    assert rewards[1] == pytest.approx(-first * second / 2 / (second - first**2) ** 1.5, rel=1e-12)
    out = np.zeros(5, np.float32)
    engine.observe(states[1], bars, par, np.zeros((3, 0), np.float32), out)
    # A over .02 sqrt(.05): 4.077; sqrt(B) over .02: 3.0305.
    assert out[3:] == pytest.approx([first / (0.02 * math.sqrt(0.05)), math.sqrt(second) / 0.02], rel=1e-6)


def test_the_differential_sharpe_reward_stays_finite_through_a_long_flat_stretch():
    bars = table([flat_bar(1.0)] * 2001 + [(1.0, 1.01, 1.0, 1.01)])
    par = parameters(reward=Reward.DIFFERENTIAL_SHARPE, sharpe_rate=0.05)
    _, rewards = follow(bars, par, [FLAT] * 2000 + [LONG])
    # B has died out: the floor is a hundredth of a full position's variance, 1e-6; B dA is nothing either.
    assert np.isfinite(rewards).all()
    assert abs(rewards[-1]) < 1.0


def expecting(rows, expected, targets, **others):
    bars = table(rows, **others.pop("table", {}))
    bars["return_forecast"][: len(expected)] = expected
    return follow(bars, parameters(reward=Reward.DENOISED, **others), targets)


def test_the_expected_reward_by_hand():
    # Bar 1: 1,000 units from 1.0; 100 are earned, 1,000 (e^.02 - 1) are paid: ln(1.0202013) = .02.
    # Bar 2: gap to 1.2, then 1.0: -100; expected of 1,000 units at 1.2: 1,200 (e^.01 - 1) = 12.0602.
    rows = [flat_bar(1.0), (1.0, 1.1, 1.0, 1.1), (1.2, 1.2, 1.0, 1.0)]
    states, rewards = expecting(rows, [0.02, 0.01], [LONG, LONG])
    assert rewards == pytest.approx([0.02, math.log(1112.060200501 / 1100)], abs=1e-12)
    assert states["equity"] == pytest.approx([1000, 1100, 1000], abs=1e-9)


def test_a_new_position_earns_the_whole_expected_move_and_the_old_one_none():
    rows = [flat_bar(1.0), flat_bar(1.0), (0.9, 0.9, 0.9, 0.9)]
    _, rewards = expecting(rows, [0.0, 0.05], [LONG, SHORT])
    # The gap's -100 is a surprise. Short 900 / .9 = 1,000 units at .9: -900 (e^.05 - 1) = -46.144.
    assert rewards[1] == pytest.approx(math.log((1000 - 900 * math.expm1(0.05)) / 1000), abs=1e-12)


def test_every_bar_of_a_decision_earns_what_was_expected_when_it_was_made():
    # Nothing moves. Two bars of .02 each, decided on at the first close; the .5 of the second close is not asked.
    rows = [flat_bar(1.0)] * 5
    _, rewards = expecting(rows, [0.02, 0.5, 0.01, 0.5], [LONG, SHORT], interval=2)
    assert rewards[0] == pytest.approx(2 * 0.02, abs=1e-12)
    assert rewards[1] == pytest.approx(2 * math.log(1 - math.expm1(0.01)), abs=1e-12)


def test_a_bar_with_an_exit_pays_its_realised_change():
    # Stopped at .99 in bar 2, whatever was expected of it.
    rows = [flat_bar(1.0), flat_bar(1.0), (1.0, 1.0, 0.98, 0.98)]
    _, rewards = expecting(rows, [0.0, 0.05], [LONG, LONG], stop_loss=0.01)
    assert rewards == pytest.approx([0.0, math.log(0.99)], abs=1e-12)


def test_the_expected_reward_pays_the_same_costs():
    # A market that stands still as expected: what is left are spread, commission, slippage and swap.
    costs = {"commission": 3e-4, "slippage": 2e-4, "swap_long": 1e-4, "table": {"spread": 0.001, "nights": 1}}
    targets, rows = [LONG, -0.5, FLAT], [flat_bar(1.0)] * 4
    _, rewards = expecting(rows, [0.0] * 3, targets, side=BID, **costs)
    plain = {k: v for k, v in costs.items() if k != "table"}
    _, realised = follow(table(rows, 0.001, nights=1), parameters(BID, **plain), targets)
    assert rewards == pytest.approx(realised, abs=1e-15)
    assert sum(rewards) < -0.002


@pytest.mark.parametrize("interval", [1, 3])
@SIDES
def test_a_perfect_expectation_is_the_realised_reward(side, interval):
    rng = np.random.default_rng(6)
    # The bars of one decision move alike: what is expected of each when it is made is what each does.
    moves = np.repeat(rng.normal(0, 0.002, 60 // interval), interval)
    close = np.exp(np.cumsum(np.concatenate(([0.0], moves))))
    opened = np.concatenate(([1.0], close[:-1]))
    rows = np.stack((opened, np.maximum(opened, close), np.minimum(opened, close), close), axis=1)
    bars = table(rows, 0.0005, nights=1)  # each opens where the last closed: no gap to be surprised by
    bars["return_forecast"][:-1] = np.diff(np.log(close))
    costs = {"commission": 1e-4, "slippage": 1e-4, "swap_long": 1e-5, "swap_short": 2e-5, "close_at_end": 1.0}
    targets = rng.uniform(-1, 1, 60 // interval)
    _, realised = follow(bars, parameters(side, interval=interval, **costs), targets)
    par = parameters(side, interval=interval, reward=Reward.DENOISED, **costs)
    _, rewards = follow(bars, par, targets)
    assert rewards == pytest.approx(realised, abs=1e-12)


def test_the_report_says_what_the_account_holds():
    states, _ = ledger(BID)
    bars = table(ROWS, spread=0.02)
    info = engine.report(states[-1], bars, parameters(BID))
    assert [getattr(info, name) for name in PAID] == pytest.approx(LEDGER_COSTS[BID], abs=1e-9)
    assert info.costs == pytest.approx(sum(LEDGER_COSTS[BID]), abs=1e-9)
    assert (info.t, info.trades, info.terminated, info.truncated) == (5, 3, 0, 1)
    assert info.total_return == pytest.approx(LEDGER[BID][-1] / 1010 - 1, abs=1e-12)
    assert math.isnan(info.sharpe_ann)


# -- many accounts, and sequences


def test_many_accounts_step_as_each_would_alone():
    rng = np.random.default_rng(4)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, 50)))
    bars = table([(c, c * 1.01, c * 0.99, c) for c in close], 0.001, nights=1)
    par = parameters(BID, cap=5.0, commission=1e-4, slippage=1e-4, swap_long=1e-4, stop_loss=0.02)
    market = rng.normal(size=(50, 3)).astype(np.float32)
    n = 35  # two blocks of accounts and a part of one
    starts = zip(rng.integers(0, 30, n).tolist(), rng.uniform(-1, 1, n).tolist(), strict=True)
    states = np.array([account(bars, par, t, left=20, action=a) for t, a in starts], ACCOUNT_DTYPE)
    alone, rewards, obs = states.copy(), np.zeros(n), np.zeros((n, 6), np.float32)
    for _ in range(15):
        actions = rng.uniform(-1, 1, n)
        engine.step_many(states, bars, NO_MINUTES, par, market, actions, rewards, obs)
        expected = [engine.step(alone[i], bars, NO_MINUTES, par, actions[i]) for i in range(n)]
        out = np.zeros((n, 6), np.float32)
        for i in range(n):
            engine.observe(alone[i], bars, par, market, out[i])
        assert np.array_equal(states, alone)
        assert rewards.tolist() == expected
        assert np.array_equal(obs, out)


def test_a_sequence_of_targets_is_followed_to_the_end_of_the_bars():
    bars, par = table(ROWS, 0.001), parameters(BID, commission=1e-4)
    states, _ = follow(bars, par, LEDGER_TARGETS)
    trace, targets = new_table(Trace, 9), np.array([*LEDGER_TARGETS, 1.0, 1.0])
    made = engine.run_targets(account(bars, par), bars, NO_MINUTES, par, targets, trace)
    assert made == 5
    trace = trace[:5]
    assert trace["t"].tolist() == [1, 2, 3, 4, 5]
    assert trace["target"].tolist() == LEDGER_TARGETS
    assert trace["equity"].tolist() == states["equity"][1:].tolist()
    mid = np.array([row[3] for row in ROWS[1:]]) * 1.0005
    assert trace["exposure"] == pytest.approx(states["units"][1:] * mid / states["equity"][1:], abs=1e-12)
    paid = columns(states[1:], *PAID).sum(axis=1)
    assert trace["costs"] == pytest.approx(paid, abs=1e-12)


# -- the New York clock, through the market of real times


def still_market(start, hours, minutes=60, **config):
    """Bars of price 1.0 (mid) over the FX week; equity then moves by costs and swap alone."""
    times = pd.date_range(start, periods=hours * 60 // minutes, freq=f"{minutes}min", tz="UTC")
    local = times.tz_convert("America/New_York").tz_localize(None) + pd.Timedelta(hours=7)
    times = times[local.day_of_week < 5]
    bars = pd.DataFrame(1.0, index=times, columns=["open", "high", "low", "close"])
    bars = Bars(bars, side="mid", seconds=minutes * 60)
    features = pd.DataFrame({"zero": np.zeros(len(bars), np.float32)}, index=times)
    return prepare_market(bars, features, TradingEnvConfig(**config), close_at_end=False)


@pytest.mark.parametrize(
    ("start", "hour"), [("2017-01-09 00:00", 21), ("2017-07-10 00:00", 20)], ids=["winter", "summer"]
)
@pytest.mark.parametrize(("target", "bps"), [(LONG, 0.6), (SHORT, 0.3)])
def test_swap_is_paid_at_1700_new_york_and_thrice_on_wednesday(start, hour, target, bps):
    market = still_market(start, 7 * 24)
    states, _ = follow(market.bars, market.terms, [target] * (len(market.bars) - 1))
    paid = np.diff(states["swap_paid"]) / (bps * 1e-4 * abs(states["units"][1:]))
    nights = pd.Series(paid, market.open_time[1:])
    nights = nights[nights > 0]
    # The bar that ends at 17:00 New York pays: 16:00 is 21:00 UTC in winter, 20:00 in summer.
    days = pd.date_range(start, periods=5, freq="D", tz="UTC") + pd.Timedelta(hours=hour)
    assert nights.index.tolist() == days.tolist()
    assert nights.tolist() == pytest.approx([1, 1, 3, 1, 1], abs=1e-9)


@pytest.mark.parametrize(
    ("start", "utc_hours"),
    [("2017-03-08 12:00", [21, 21, 21, 20, 20]), ("2017-11-01 12:00", [20, 20, 20, 21, 21])],
)
def test_the_swap_moves_with_the_clock_change(start, utc_hours):
    # From Wednesday over the Sunday of the switch (12 March, 5 November) to Tuesday.
    market = still_market(start, 6 * 24 + 18)
    states, _ = follow(market.bars, market.terms, [LONG] * (len(market.bars) - 1))
    paying = np.diff(states["swap_paid"]) > 0
    assert market.open_time[1:][paying].hour.tolist() == utc_hours


def test_a_night_between_two_bars_is_paid_by_the_old_position():
    # Bars end at 16:00 New York and go on at 18:00 of the same Tuesday: the night falls into the hole.
    market = still_market("2017-01-10 15:00", 12)
    keep = ~market.open_time.hour.isin([21, 22])
    bars = market.bars[keep]
    frame = pd.DataFrame(1.0, index=market.open_time[keep], columns=["open", "high", "low", "close"])
    frame = Bars(frame, side="mid", seconds=3600)
    features = pd.DataFrame({"zero": np.zeros(len(bars), np.float32)}, index=frame.index)
    holed = prepare_market(frame, features, TradingEnvConfig(), close_at_end=False)
    assert holed.bars["nights_gap"].tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert holed.bars["nights_bar"].sum() == 0
    states, _ = follow(holed.bars, holed.terms, [LONG] * 9)
    paid = np.diff(states["swap_paid"])
    assert np.flatnonzero(paid).tolist() == [5]
    assert paid[5] == pytest.approx(0.6e-4 * states["units"][5], rel=1e-12)


@pytest.mark.parametrize("start", ["2017-01-10 15:00", "2017-07-11 14:00"], ids=["winter", "summer"])
def test_exposure_is_frozen_from_1645_to_1900_new_york(start):
    market = still_market(start, 12, minutes=15)
    targets = np.linspace(-1.0, 1.0, len(market.bars) - 1)
    states, _ = follow(market.bars, market.terms, targets)
    changed = np.diff(states["units"]) != 0
    clock = market.open_time[1:].tz_convert("America/New_York").strftime("%H:%M")
    frozen = ["16:45", *[f"{h}:{m}" for h in (17, 18) for m in ("00", "15", "30", "45")]]
    assert [c for c, moved in zip(clock, changed, strict=True) if not moved] == frozen
    during = states[1:]["units"][~changed]
    assert np.all(during == during[0])
    assert during[0] != 0.0


def test_the_engine_pays_the_spread_of_the_half_hour_it_trades_in():
    # Half of .55 bps in normal hours, half of 1.2 x .55 from 19:00 to 19:30 New York.
    market = still_market("2017-01-10 23:00", 4, minutes=30)
    states, _ = follow(market.bars, market.terms, [FLAT, LONG, FLAT, LONG])
    clock = market.open_time.tz_convert("America/New_York").strftime("%H:%M")
    assert clock[2:5].tolist() == ["19:00", "19:30", "20:00"]
    paid = np.diff(states["spread_paid"])
    assert paid[1] == pytest.approx(1000 * 1.2 * 0.55e-4 / 2, rel=1e-9)
    assert paid[2] == pytest.approx(abs(states["units"][2]) * 0.55e-4 / 2, rel=1e-9)
