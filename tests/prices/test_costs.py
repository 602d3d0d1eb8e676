"""What a trade costs and when it is possible, against the New York clock by hand."""

import numpy as np
import pandas as pd
import pytest

from sac_kernel.experiment import horizons
from sac_kernel.market import engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import prepare_market
from sac_kernel.market.records import Account, Trace, blank, new_table
from sac_kernel.prices import costs
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.instruments import EURUSD
from sac_kernel.stats import metrics


def at(*moments):
    return pd.DatetimeIndex(moments, tz="UTC")


# 2017: New York is UTC-5 until 12 March and from 5 November, UTC-4 between.
WINTER_NOON, SUMMER_NOON = "2017-01-10 17:00", "2017-07-11 16:00"


@pytest.mark.parametrize("moment", [WINTER_NOON, SUMMER_NOON])
@pytest.mark.parametrize(("tier", "bps"), [("raw", 0.36), ("base", 0.75), ("retail", 3.5)])
def test_one_way_cost_in_normal_hours(tier, bps, moment):
    # (.55 / 2 + .32 + .155) x factor = .75 x factor; factors .48, 1 and 14/3.
    assert costs.one_way_bps(at(moment), tier) == pytest.approx([bps], abs=1e-12)


@pytest.mark.parametrize(
    ("clock", "times_normal"),
    [
        ("16:59", 1.0),
        ("17:00", 10.0),
        ("17:29", 10.0),
        ("17:30", 6.0),
        ("18:00", 3.5),
        ("18:30", 2.0),
        ("19:00", 1.2),
        ("19:30", 1.0),
        ("00:00", 1.0),
        ("09:30", 1.0),
    ],
)
@pytest.mark.parametrize("day", ["2017-01-10", "2017-07-11"])
def test_spread_follows_the_new_york_half_hour(day, clock, times_normal):
    moment = pd.DatetimeIndex([f"{day} {clock}"]).tz_localize("America/New_York").tz_convert("UTC")
    assert costs.spread_bps(moment, "base") == pytest.approx([0.55 * times_normal], abs=1e-12)
    assert costs.spread_bps(moment, "raw") == pytest.approx([0.48 * 0.55 * times_normal], abs=1e-12)


def test_spread_table_is_never_flat_nor_below_normal_and_cannot_be_changed():
    profile = np.array(EURUSD.spread_widening)
    assert profile.shape == (48,)
    assert profile.min() == 1.0
    assert int((profile > 1.0).sum()) == 5
    with pytest.raises(TypeError):
        EURUSD.spread_widening[0] = 2.0


def test_one_way_cost_at_the_widest_half_hour():
    # 17:10 in July: half of 5.5 bps, and .475 of fees: 3.225.
    assert costs.one_way_bps(at("2017-07-11 21:10"), "base") == pytest.approx([3.225], abs=1e-12)


@pytest.mark.parametrize(
    ("utc", "tradable"),
    [
        ("2017-01-10 21:44", True),  # 16:44 in winter
        ("2017-01-10 21:45", False),
        ("2017-01-10 23:59", False),
        ("2017-01-11 00:00", True),  # 19:00
        ("2017-07-11 20:44", True),  # 16:44 in summer
        ("2017-07-11 20:45", False),
        ("2017-07-11 22:59", False),
        ("2017-07-11 23:00", True),
    ],
)
def test_exposure_is_frozen_from_1645_to_1900_new_york(utc, tradable):
    assert costs.is_tradable(at(utc)).tolist() == [tradable]


@pytest.mark.parametrize(
    ("after", "until", "nights"),
    [
        ("2017-01-10 21:59", "2017-01-10 22:00", 1),  # Tuesday 17:00 in winter
        ("2017-01-10 22:00", "2017-01-10 23:00", 0),  # 17:00 itself belongs to the interval before
        ("2017-07-11 20:59", "2017-07-11 21:00", 1),  # Tuesday 17:00 in summer
        ("2017-07-11 21:30", "2017-07-11 22:30", 0),  # 22:00 UTC is 18:00 then
        ("2017-01-11 21:00", "2017-01-11 22:00", 3),  # Wednesday
        ("2017-07-12 20:00", "2017-07-12 21:00", 3),
        ("2017-01-13 21:00", "2017-01-13 22:00", 1),  # Friday
        ("2017-01-13 22:00", "2017-01-15 22:00", 0),  # Saturday's and Sunday's 17:00 are no nights
        ("2017-01-09 12:00", "2017-01-16 12:00", 7),  # a week: 1 + 1 + 3 + 1 + 1
        ("2017-03-10 12:00", "2017-03-13 20:59", 1),  # over the switch of 12 March: Friday's only
        ("2017-03-10 12:00", "2017-03-13 21:00", 2),  # Monday's falls at 21:00 UTC from now on
        ("2017-11-03 20:59", "2017-11-06 21:59", 1),  # over the switch of 5 November
        ("2017-11-03 20:59", "2017-11-06 22:00", 2),
        ("1970-01-01 00:00", "1970-01-15 00:00", 14),  # two weeks from the epoch
    ],
)
def test_nights_are_charged_at_1700_new_york_and_three_on_wednesday(after, until, nights):
    assert costs.swap_nights(at(after), at(until)).tolist() == [nights]


def test_nights_of_adjoining_intervals_add_up():
    edges = pd.date_range("2017-02-27", "2017-03-27", freq="7h", tz="UTC")
    total = costs.swap_nights(edges[:1], edges[-1:])
    assert costs.swap_nights(edges[:-1], edges[1:]).sum() == total[0] == 28


@pytest.mark.parametrize(
    ("utc", "hours"),
    [
        ("2017-01-10 21:59", 1 / 60),
        ("2017-01-10 22:00", 24.0),
        ("2017-01-10 12:00", 10.0),
        ("2017-07-11 12:00", 9.0),
        ("2017-07-11 04:00", 17.0),  # New York's midnight
    ],
)
def test_hours_to_rollover_count_down_to_1700(utc, hours):
    assert costs.hours_to_rollover(at(utc)) == pytest.approx([hours], abs=1e-12)


def test_trading_day_changes_at_1700_new_york_summer_and_winter():
    winter = costs.trading_day(at("2017-01-10 21:59:59", "2017-01-10 22:00:00"))
    summer = costs.trading_day(at("2017-07-11 20:59:59", "2017-07-11 21:00:00"))
    assert np.diff(winter).tolist() == [1]
    assert np.diff(summer).tolist() == [1]
    # Friday 17:00 opens what would be Saturday, Sunday 17:00 opens Monday: two numbers on.
    weekend = costs.trading_day(at("2017-01-13 21:59", "2017-01-15 22:00"))
    assert np.diff(weekend).tolist() == [3]


def test_new_york_minute_of_the_day():
    moments = at("2017-01-10 05:00", "2017-01-10 04:59", "2017-07-11 04:01")
    assert costs.new_york_minute(moments).tolist() == [0, 1439, 1]


def test_the_spread_profile_is_no_narrower_than_a_brokers_hours(shared_data):
    # OANDA's EURUSD medians of 2023 by UTC hour. In summer, most of the year, 21 and 22 UTC are 17 and 18 New York.
    table = pd.read_csv(shared_data / "OANDA_spread_by_hour_2023.csv")
    pips = table[table["symbol"] == "EURUSD"].set_index("hour_utc")["median"]
    normal = pips.drop([21, 22, 23]).median()
    hourly = np.array(EURUSD.spread_widening).reshape(24, 2).mean(axis=1)
    assert 4.5 < pips[21] / normal <= hourly[17] < 10.0
    assert 2.0 < pips[22] / normal <= hourly[18] < 4.0
    assert pips.drop([21, 22]).max() / normal == pytest.approx(1.0, abs=0.15)


EVENING = 17 * 60 + 5, 19 * 60


def held_in(market, start, end):
    """Log growth and annual Sharpe ratio of a long held in a window of the New York clock, every day."""
    minute = costs.new_york_minute(market.open_time[1:])
    held = ((minute >= start) & (minute < end)).astype(float)
    state, trace = blank(Account), new_table(Trace, len(held))
    engine.reset(state, market.bars, market.terms, 0, 10**7, 1.0, 0.0)
    engine.run_targets(state, market.bars, market.minutes, market.terms, held, trace)
    daily = metrics.daily_returns(trace["equity"], market.bars["trading_day"][1:].astype(int), 1.0)
    return np.log(state.equity), metrics.sharpe_ann(daily)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "artefact"), [("EURUSD", 3.0), ("EURGBP", 4.5), ("USDCHF", 1.3), ("XAUUSD", None)]
)
def test_the_rollover_rule_earns_nothing_on_real_bids(shared_data, name, artefact):
    pytest.importorskip("pyarrow")
    bars = pd.read_parquet(shared_data / "fx_m5_2017_2019" / f"{name}_M5.parquet")
    bars = bars.set_index(pd.DatetimeIndex(bars["timestamp"]).as_unit("ns"))[["open", "high", "low", "close"]]
    bars = Bars(bars, side="bid", seconds=300, instrument=name)
    nothing = pd.DataFrame({"zero": np.zeros(len(bars), np.float32)}, bars.index)
    for tier in costs.COST_TIERS:
        market = prepare_market(bars, nothing, TradingEnvConfig(cost_tier=tier), close_at_end=True)
        # The rule itself, and around the freeze: in before it, out after it.
        for window in (EVENING, (16 * 60 + 40, 19 * 60 + 5), (16 * 60 + 40, 20 * 60)):
            assert held_in(market, *window)[0] <= 0.0
    if artefact is None:  # gold does not trade from 17:00 to 18:00
        return
    # With bid for mid, one flat spread and orders at all hours it shows the edge that does not exist.
    bars, terms = market.bars, market.terms
    terms.price_side = terms.swap_long = 0.0
    terms.commission *= 0.48 * 3 / 14  # from the last tier, retail, to raw
    terms.slippage *= 0.48 * 3 / 14
    bars["spread_open"] = bars["spread_close"] = 0.48 * EURUSD.spread_bps * 1e-4
    market.bars["tradable"] = 1.0
    assert held_in(market, *EVENING)[1] > artefact


@pytest.mark.parametrize(
    ("bars", "tier", "ic"),
    [(12, "base", 0.183), (48, "base", 0.091), (288, "base", 0.037), (1440, "base", 0.017), (14, "raw", 0.081),
     (288, "raw", 0.018)],
)  # fmt: skip
def test_break_even_coefficients_of_five_minute_bars(bars, tier, ic):
    # By hand: 1.5 bps a round trip / (.798 x 2.97 bps a bar x sqrt(bars)); raw 0.72 bps.
    assert horizons.break_even_ic(5 * bars, tier) == pytest.approx(ic, abs=0.0015 if ic > 0.1 else 6e-4)
