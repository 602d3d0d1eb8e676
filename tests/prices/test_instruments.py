"""Instruments: the built-in ones against measured figures, own specs and costs, names and prices that do not fit."""

import dataclasses
import json
import tomllib

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core.errors import ConfigError, DataError, InputNotFoundError
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import prepare_market
from sac_kernel.prices import costs
from sac_kernel.prices.bars import Bars, check_plausible, make_bars, spec_for, split_notes, with_spread
from sac_kernel.prices.instruments import (
    EURUSD,
    INSTRUMENTS,
    KINDS,
    canonical,
    choose_traded,
    from_toml,
    from_values,
    spec_of,
)

PRICE = {"EURUSD": 1.081, "GBPUSD": 1.243, "USDCAD": 1.349, "USDCHF": 0.898, "USDJPY": 140.5, "EURGBP": 0.870}
"""Of 2023, the year of OANDA's spreads."""


def test_spreads_of_pairs_follow_oandas_daytime_medians(shared_data):
    table = pd.read_csv(shared_data / "OANDA_spread_by_hour_2023.csv")
    day = table[table["hour_utc"].between(7, 16)].groupby("symbol")["median"].median()
    pip = {name: 0.01 if name.endswith("JPY") else 1e-4 for name in PRICE}
    bps = {name: 1e4 * day[name] * pip[name] / PRICE[name] for name in PRICE}
    for name in PRICE:
        ours = spec_of(name).spread_bps / EURUSD.spread_bps
        assert ours == pytest.approx(bps[name] / bps["EURUSD"], rel=0.15), name


def test_evening_spreads_of_pairs_are_no_narrower_than_oandas(shared_data):
    # In summer, most of the year, 21 and 22 UTC are the hours from 17:00 and 18:00 New York.
    table = pd.read_csv(shared_data / "OANDA_spread_by_hour_2023.csv").set_index(["symbol", "hour_utc"])[
        "median"
    ]
    for name in PRICE:
        hourly = np.array(spec_of(name).spread_widening).reshape(24, 2).mean(axis=1)
        normal = table[name].loc[7:16].median()
        assert hourly[17] >= 0.99 * table[name, 21] / normal, name
        assert hourly[18] >= 0.99 * table[name, 22] / normal, name


@pytest.mark.parametrize(
    ("name", "tier", "bps"),
    [("EURUSD", "raw", 0.26), ("XAUUSD", "base", 0.62), ("SPXUSD", "base", 1.06)],
)
def test_spreads_are_those_that_were_measured(name, tier, bps):
    # Dukascopy EURUSD, MetaTrader gold, S&P ticks: docs/instruments.md.
    spec = spec_of(name)
    assert spec.spread_bps * spec.factor(tier) == pytest.approx(bps, rel=0.02)


@pytest.mark.parametrize(
    ("alias", "name", "kind"),
    [("GOLD", "XAUUSD", "metal"), ("BTCUSDT", "BTCUSD", "crypto"), ("XRPUSDT", "XRPUSD", "crypto"),
     ("WTI", "XTIUSD", "metal"), ("US500", "SPXUSD", "index"), ("DE40", "GER40", "index"), ("US30", "US30", "index"),
     ("EUR/USD", "EURUSD", "fx"), ("audnzd", "AUDNZD", "fx")],
)  # fmt: skip
def test_other_names_of_an_instrument(alias, name, kind):
    assert (canonical(alias), spec_of(alias).symbol, spec_of(alias).kind) == (name, name, kind)


def test_the_ten_of_the_guide_are_built_in():
    assert [spec_of(name).symbol for name in INSTRUMENTS] == list(INSTRUMENTS)
    assert [spec_of(name).days_a_year for name in ("EURUSD", "BTCUSD")] == [260, 365]
    assert spec_of("ABC", "equity").days_a_year == 252


def test_a_name_that_nobody_knows_needs_its_kind():
    with pytest.raises(DataError, match="--kind"):
        spec_of("ABC")
    for kind in KINDS:
        assert spec_of("ABC", kind).kind == kind
    with pytest.raises(ConfigError, match="crypto"):
        spec_of("BTCUSD", "equity")
    assert choose_traded(["BTCUSDT", "ETHUSDT"], "BTCUSD", "x") == "BTCUSDT"


def test_own_costs_replace_the_instruments_and_have_tiers_of_a_half_one_and_two():
    spec = spec_of("EURUSD").with_costs("spread_bps=2, commission_per_lot=3.5")
    assert (spec.spread_bps, spec.commission_bps, spec.commission_per_lot) == (2.0, 0.0, 3.5)
    assert [spec.factor(tier) for tier in costs.COST_TIERS] == [0.5, 1.0, 2.0]
    # USD 3.50 a lot of EUR 100,000 at 1.25 is .28 bps; half of 2 bps and slippage .155 on top.
    assert costs.normal_one_way_bps("base", spec, 1.25) == pytest.approx(1.0 + 0.155 + 0.28)
    assert EURUSD.with_costs("") is EURUSD
    for wrong, word in (
        ("spred_bps=1", "spread_bps"),
        ("spread_bps=wide", "wide"),
        ("spread_bps=-1", "spread_bps"),
    ):
        with pytest.raises(ConfigError, match=word):
            EURUSD.with_costs(wrong)


def test_a_spec_goes_through_toml(tmp_path):
    path = tmp_path / "spec.toml"
    for spec in (EURUSD, spec_of("GER40"), spec_of("ABC", "equity"), spec_of("ETHUSDT")):
        path.write_text(spec.toml(), encoding="utf-8")
        assert from_toml(path) == spec
    path.write_text(
        'symbol = "FUT"\nkind = "index"\nspread_bps = 3\nzone = "Europe/Berlin"\n', encoding="utf-8"
    )
    own = from_toml(path)
    assert own == dataclasses.replace(
        spec_of("FUT", "index"), spread_bps=3.0, zone="Europe/Berlin", tiers=(0.5, 1.0, 2.0)
    )


def test_a_spec_may_widen_by_half_hour():
    spec = from_values({"symbol": "EURUSD", "spread_widening": {"17:30": 4.0}}, "x")
    assert (spec.spread_widening[35], sum(spec.spread_widening)) == (4.0, 51.0)


@pytest.mark.parametrize(
    ("values", "word"),
    [({"kind": "bond"}, "bond"), ({"zone": "Mars/Base"}, "Mars"), ({"freeze": ["19:00", "16:00"]}, "freeze"),
     ({"spread_bsp": 1.0}, "spread_bps"), ({"lot": "one"}, "lot"), ({"session": ["09:00", "17:00"]}, "session"),
     ({"spread_widening": [1.0]}, "spread_widening"), ({"price_range": [2.0, 1.0]}, "price_range"),
     ({"rollover": ["25:00"]}, "25:00")],
)  # fmt: skip
def test_a_spec_that_cannot_be_is_refused(values, word):
    with pytest.raises(ConfigError, match=word):
        from_values({"symbol": "EURUSD", **values}, "x")


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match="none"):
        from_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("symbol = ", encoding="utf-8")
    with pytest.raises(ConfigError, match="bad"):
        from_toml(tmp_path / "bad.toml")


def hourly(price, n=6, **facts):
    index = pd.date_range("2017-01-03", periods=n, freq="h", tz="UTC")
    return Bars(
        pd.DataFrame({k: np.full(n, price) for k in ("open", "high", "low", "close")}, index), **facts
    )


@pytest.mark.parametrize(
    ("name", "price", "fits"),
    [("EURUSD", 1.1, True), ("EURUSD", 3578.0, False), ("USDJPY", 150.0, True), ("USDJPY", 1.1, False),
     ("XAUUSD", 2000.0, True), ("XAUUSD", 1.1, False), ("BTCUSDT", 40_000.0, True), ("USDTRY", 32.0, True)],
)  # fmt: skip
def test_prices_must_fit_the_name(name, price, fits):
    if fits:
        check_plausible(hourly(price), spec_of(name), name)
    else:
        with pytest.raises(DataError, match=f"{price:g}"):
            check_plausible(hourly(price), spec_of(name), name)


def test_an_unadjusted_split_is_named():
    bars = hourly(400.0, instrument="ABC")
    bars.iloc[3:] *= 0.2525  # 4:1, and the night's own +1 %
    (note,) = split_notes(bars, spec_of("ABC", "equity"))
    assert "4:1" in note
    assert "2017-01-03" in note
    assert split_notes(bars, spec_of("BTCUSD")) == []
    bars.iloc[3:] *= 1.3 * 0.99 / 0.2525
    assert split_notes(bars, spec_of("ABC", "equity")) == []


def test_the_files_own_spread_is_charged():
    spec = dataclasses.replace(spec_of("XAUUSD"), spread_from="column")
    bars = hourly(2000.0, side="mid", seconds=3600, instrument="XAUUSD", spec=spec)
    bars["spread_points"] = np.array([10.0, 20, 30, 40, 50, 60])  # points of .01
    bars = with_spread(bars, spec)
    assert bars["spread"].tolist() == pytest.approx([k * 5e-5 for k in range(1, 7)])
    assert spec_for(bars[2:]) == spec
    market = prepare_market(
        bars,
        pd.DataFrame({"none": np.zeros(6, np.float32)}, bars.index),
        TradingEnvConfig(observes="target"),
        close_at_end=True,
    )
    assert market.bars["spread_open"] == pytest.approx(bars["spread"])
    # A close plans with its own bar's spread: half of it and the fees.
    fees = (spec.commission_bps + spec.slippage_bps) * 1e-4 + spec.commission_per_unit / 2000.0
    assert market.observed[:, -2] == pytest.approx(bars["spread"] / 2 + fees, rel=1e-3)
    with pytest.raises(DataError, match="spread"):
        prepare_market(
            bars.drop(columns="spread"), pd.DataFrame({"none": np.zeros(6, np.float32)}, bars.index),
            TradingEnvConfig(), close_at_end=True,
        )  # fmt: skip


def test_a_spread_that_cannot_be_is_refused():
    times = pd.date_range("2017-01-03", periods=3, freq="h", tz="UTC")
    with pytest.raises(DataError, match="spread"):
        make_bars(times, np.ones((3, 4)), "x", spread=np.array([1e-4, -1e-4, 1e-4]))


def test_daily_bars_of_fx_can_trade_and_their_sizes_of_gaps_follow_the_calendar():
    opens = pd.DatetimeIndex(["2017-01-09 22:00", "2017-01-10 22:00"], tz="UTC")  # 17:00 New York
    assert costs.is_tradable(opens, EURUSD, 300).tolist() == [False, False]
    assert costs.is_tradable(opens, EURUSD, 86_400).tolist() == [True, True]
    assert costs.is_tradable(opens, spec_of("BTCUSD"), 300).tolist() == [True, True]
    days = [spec.hole_s(300) / 86_400 for spec in (EURUSD, spec_of("BTCUSD"), spec_of("ABC", "equity"))]
    assert days == [4, 1, 5]
    assert EURUSD.hole_s(86_400) / 86_400 == 5


def test_a_trading_day_is_of_the_calendar():
    # Friday 21:59 and 22:00 UTC in winter are before and after 17:00 New York.
    pair = pd.DatetimeIndex(["2017-01-13 21:59", "2017-01-13 22:00"], tz="UTC")
    assert np.diff(costs.trading_day(pair)).tolist() == [1]
    assert np.diff(costs.trading_day(pair, spec_of("BTCUSD"))).tolist() == [0]
    day = costs.trading_day(pair[:1], spec_of("BTCUSD"))
    assert day.astype("datetime64[D]").astype(str).tolist() == ["2017-01-13"]


def test_what_applies_is_said_in_bps_and_steps():
    text = "\n".join(costs.describe(spec_of("XAUUSD"), 2000.0))
    # .31 + .35 + .3 bps; a step of .01 is .05 bps of 2,000.
    assert "0.96 bps (19.2 steps)" in text
    assert json.loads(json.dumps(EURUSD.flat()))["symbol"] == "EURUSD"
    assert tomllib.loads(EURUSD.toml())["spread_bps"] == 0.55
