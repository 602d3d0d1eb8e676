"""Sizes and limits: pure functions by hand, and a live loop that agrees with the engine."""

import math

import numpy as np
import pytest

from sac_kernel.market import engine, risk_limits
from tests.market.test_engine import LONG, columns, flat_bar, follow, parameters, table


@pytest.mark.parametrize(("volatility", "exposure"), [(0.05, 2.0), (0.1, 1.0), (0.4, 0.25)])
def test_a_volatility_target_scales_by_target_over_volatility(volatility, exposure):
    assert risk_limits.volatility_target_exposure(volatility, 0.1) == pytest.approx(exposure, rel=1e-15)


def test_atr_size_loses_the_risk_when_price_moves_that_many_ranges():
    # 2 % at two ranges of 4 bps: .02 / .0008 = 25, and 25 x .0008 is lost.
    exposure = risk_limits.atr_exposure(0.0004, 0.02, 2.0)
    assert exposure == pytest.approx(25.0, rel=1e-12)
    assert exposure * 2 * 0.0004 == pytest.approx(0.02, rel=1e-12)
    assert risk_limits.atr_exposure(0.0008, 0.02, 2.0) == pytest.approx(12.5, rel=1e-12)


@pytest.mark.parametrize("hit", [risk_limits.daily_loss_hit, risk_limits.drawdown_hit, risk_limits.kill_hit])
def test_a_limit_is_hit_at_its_share_and_never_when_off(hit):
    assert hit(900.0, 1000.0, 0.1)
    assert not hit(900.1, 1000.0, 0.1)
    assert hit(950.0, 1000.0, 0.05)
    assert not hit(0.0, 1000.0, 0.0)
    assert not hit(1100.0, 1000.0, 0.1)


@pytest.mark.parametrize(
    ("daily", "drawdown", "kill", "until"),
    [
        (False, False, False, 0.0),
        (True, False, False, 8.0),  # the rest of day 7
        (False, True, False, 11.0),  # and three days more
        (True, True, False, 11.0),
        (False, False, True, math.inf),
    ],
)
def test_the_day_on_which_exposure_is_allowed_again(daily, drawdown, kill, until):
    assert risk_limits.halted_until(0.0, 7.0, daily, drawdown, 3.0, kill) == until


def test_a_halt_is_never_shortened_and_a_kill_never_ends():
    assert risk_limits.halted_until(20.0, 7.0, True, True, 3.0, False) == 20.0
    assert risk_limits.halted_until(risk_limits.NEVER, 7.0, True, False, 3.0, False) == math.inf
    assert risk_limits.is_halted(8.0, 7.0)
    assert not risk_limits.is_halted(8.0, 8.0)


def live_loop(equity, day, daily_limit, stop, pause, kill):
    """What a live loop does with the same functions: one number and one peak to remember."""
    until, peak, start, morning, halted = 0.0, equity[0], equity[0], equity[0], []
    for i in range(1, len(equity)):
        if i > 1 and day[i] != day[i - 1]:
            morning = equity[i - 1]
        drawdown = risk_limits.drawdown_hit(equity[i], peak, stop)
        peak = equity[i] if drawdown else max(peak, equity[i])
        until = risk_limits.halted_until(
            until,
            day[i],
            risk_limits.daily_loss_hit(equity[i], morning, daily_limit),
            drawdown,
            pause,
            risk_limits.kill_hit(equity[i], start, kill),
        )
        halted.append(until)
    return halted


def test_a_live_loop_halts_when_the_engine_does():
    rng = np.random.default_rng(5)
    price = np.exp(np.cumsum(rng.normal(0, 0.01, 400)))
    bars = table([flat_bar(p) for p in price], day=np.arange(400) // 8)
    par = parameters(cap=3.0, daily_loss_limit=0.05, drawdown_stop=0.15, drawdown_pause_days=2, kill_loss=0.5)
    states, _ = follow(bars, par, rng.uniform(-1, 1, 399))
    halted = live_loop(states["equity"], bars["trading_day"], 0.05, 0.15, 2.0, 0.5)
    assert states["halted_until"][1:].tolist() == halted
    assert len(set(halted)) > 8


# -- the limits in the engine


def limited(prices, days, target=LONG, **limits):
    bars = table([flat_bar(prices[0])] + [flat_bar(p) for p in prices[1:]], day=days)
    targets = [target] * (len(prices) - 1)
    return follow(bars, parameters(**limits), targets)[0]


def test_a_daily_loss_flattens_at_the_next_open_until_the_day_is_over():
    # Bought at 1.00; .94 at the close of bar 2 is 6 % down: sold at the next open, .95. Day 1 begins in bar 5:
    # 950 / .9 units again.
    prices, days = [1.0, 1.0, 0.94, 0.95, 0.99, 0.9, 0.9], [0, 0, 0, 0, 0, 1, 1]
    states = limited(prices, days, daily_loss_limit=0.05)
    assert states["equity"] == pytest.approx([1000, 1000, 940, 950, 950, 950, 950], abs=1e-9)
    assert states["halted_until"].tolist() == [0, 0, 1, 1, 1, 1, 1]
    assert states["units"][3:] == pytest.approx([0, 0, 950 / 0.9, 950 / 0.9], abs=1e-9)


def test_the_daily_loss_is_measured_from_the_last_close_of_the_day_before():
    # 4 % down on day 0, then 4 % of 960 on day 1: 921.6, no day loses 5 %.
    states = limited([1.0, 1.0, 0.96, 0.96, 0.9216, 0.9216], [0, 0, 0, 1, 1, 1], daily_loss_limit=0.05)
    assert columns(states[-1], "halted_until", "units").tolist() == [0.0, 1000.0]


def test_a_limit_flattens_in_the_freeze_and_pays_for_it():
    bars = table([flat_bar(p) for p in (1.0, 1.0, 0.94, 0.94, 0.94)])
    bars["tradable"][3:] = 0.0
    bars["spread_open"][3] = 0.02
    states, _ = follow(bars, parameters(daily_loss_limit=0.05, commission=0.001), [LONG] * 4)
    # 1,000 units, commission 1 in; out at .94 x .99, commission .94.
    assert states["equity"][3:] == pytest.approx([1000 - 1 - 60 - 9.4 - 0.94] * 2, abs=1e-9)
    assert states["units"][3:].tolist() == [0.0, 0.0]


def test_a_drawdown_stop_pauses_and_then_measures_from_a_new_peak():
    # Peak 1,200, stop 10 %: 1,080 at 1.08. Out at 1.06, that is 1,060, flat through days 1 and 2 (pause 1); back
    # on day 3 at 1.0. The new peak is 1,080, where the stop was hit: it is hit again at 972 or less, not before.
    prices = [1.0, 1.0, 1.2, 1.08, 1.06, 1.02, 1.0, 0.93, 0.91, 0.9]
    days = [0, 0, 1, 1, 1, 2, 3, 3, 3, 3]
    states = limited(prices, days, drawdown_stop=0.1, drawdown_pause_days=1)
    assert states["halted_until"][3:6].tolist() == [3, 3, 3]
    assert states["equity"][[3, 4, 5, 6]] == pytest.approx([1080, 1060, 1060, 1060], abs=1e-9)
    assert states["units"][[4, 5]].tolist() == [0, 0]
    assert states["units"][6] == pytest.approx(1060.0)
    assert columns(states[7], "equity", "halted_until") == pytest.approx([985.8, 3.0])
    assert columns(states[8], "equity", "halted_until") == pytest.approx([964.6, 5.0])
    assert states["units"][9] == 0.0


def test_a_kill_switch_ends_trading_for_good():
    states = limited([1.0, 1.0, 0.79, 0.8, 1.0, 1.0], [0, 0, 0, 1, 2, 3], kill_loss=0.2)
    assert states["halted_until"][2:].tolist() == [math.inf] * 4
    assert states["units"][3:].tolist() == [0.0] * 3
    assert states["equity"][3:] == pytest.approx([800.0] * 3)
    assert columns(states[-1], "terminated", "truncated").tolist() == [0, 1]


def test_the_account_sees_that_it_is_halted():
    bars, par = table([flat_bar(p) for p in (1.0, 1.0, 0.94, 0.94, 0.94)]), parameters(daily_loss_limit=0.05)
    bars["trading_day"][4] = 1
    states, _ = follow(bars, par, [LONG] * 4)
    seen = np.zeros((5, 4), np.float32)
    for state, out in zip(states, seen, strict=True):
        engine.observe(state, bars, par, np.zeros((5, 0), np.float32), out)
    assert seen[:, 3].tolist() == [0, 0, 1, 1, 0]


def test_an_order_given_while_halted_fills_when_the_halt_ends_within_its_interval():
    # Stopped out by the daily loss of bar 2; the decision at close 3 covers bars 4 to 6, day 1 begins in bar 5.
    bars = table([flat_bar(p) for p in (1.0, 1.0, 0.94, 0.94, 0.94, 0.8, 0.8)])
    bars["trading_day"][5:] = 1
    states, _ = follow(bars, parameters(daily_loss_limit=0.05, interval=3), [LONG, -1.0])
    assert columns(states[1], "equity", "units").tolist() == [940.0, 0.0]
    assert states["units"][2] == pytest.approx(-940 / 0.8)
