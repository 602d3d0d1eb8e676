"""Larger bars by hand and against a slow twin; joining; instruments and their names."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sac_kernel.core.errors import DataError
from sac_kernel.prices.bars import drop_repeats, follows_gap, make_bars
from sac_kernel.prices.ingest.instrument_names import guess_instrument, point_digits, points_scale
from sac_kernel.prices.ingest.tables import BarTable, aggregate, bars_of_ticks, join
from tests.support import says, told


def table_of(minutes, prices=None, seconds=60):
    times = pd.Timestamp("2019-02-04", tz="UTC") + pd.to_timedelta(np.asarray(minutes) * 60, unit="s")
    if prices is None:
        prices = [(1 + m / 1000, 1.5 + m / 1000, 0.5 + m / 1000, 1.1 + m / 1000) for m in minutes]
    bars = make_bars(pd.DatetimeIndex(times), np.asarray(prices, float), "here", "bid", seconds)
    return BarTable(bars, "here", "UTC")


def test_a_bar_is_first_open_highest_high_lowest_low_last_close_of_the_minutes_there_are():
    # minutes 0, 2, 3 of the first five; none of the second five; minute 14 of the third
    prices = [
        (1.10, 1.12, 1.09, 1.11),
        (1.11, 1.15, 1.10, 1.14),
        (1.14, 1.14, 1.05, 1.06),
        (1.20, 1.21, 1.19, 1.20),
    ]
    made = aggregate(table_of([0, 2, 3, 14], prices), 300)
    assert made.bars.index.strftime("%H:%M").tolist() == ["00:00", "00:10"]
    assert made.bars.to_numpy().tolist() == [[1.10, 1.15, 1.05, 1.06], [1.20, 1.21, 1.19, 1.20]]
    assert made.bars.seconds == 300


def test_a_large_move_stays():
    prices = [(1.0, 1.0, 1.0, 1.0), (9.0, 9.0, 0.1, 5.0)]
    assert aggregate(table_of([0, 1], prices), 300).bars.to_numpy().tolist() == [[1.0, 9.0, 0.1, 5.0]]


@given(st.sets(st.integers(0, 3000), min_size=2, max_size=300), st.sampled_from([2, 5, 15, 60, 240, 1440]))
def test_aggregation_equals_pandas_resample(minutes, size):
    table = table_of(sorted(minutes))
    made = aggregate(table, 60 * size).bars
    rule = {"open": "first", "high": "max", "low": "min", "close": "last"}
    expected = table.bars.resample(f"{size}min").agg(rule).dropna()
    pd.testing.assert_frame_equal(made, expected, check_freq=False)


@pytest.mark.parametrize("seconds", [90, 420, 30, 0, 172_800])
def test_a_bar_size_that_does_not_fit_is_refused(seconds):
    with pytest.raises(DataError, match=says("1 min")):
        aggregate(table_of([0, 1]), seconds)


def test_source_bars_across_two_larger_ones_are_refused():
    with pytest.raises(DataError, match=says("1", "2019-02-04T10:00:00+00:00")):
        aggregate(table_of([0, 600], seconds=4 * 3600), 12 * 3600)


def test_ticks_make_bars_of_their_own_side():
    seconds = np.array([0, 10, 59, 130])
    bars = bars_of_ticks(seconds + 1_549_238_400, np.array([1.3, 1.1, 1.2, 1.5]), 60, "here")
    assert bars.index.strftime("%H:%M").tolist() == ["00:00", "00:02"]
    assert bars.to_numpy().tolist() == [[1.3, 1.3, 1.1, 1.2], [1.5] * 4]


@pytest.mark.parametrize("price", [np.nan, np.inf, 0.0, -1.0])
def test_a_bad_tick_is_refused(price):
    with pytest.raises(DataError, match=says("1", "2")):
        bars_of_ticks(np.array([10**9, 10**9]), np.array([1.0, price]), 60, "here")


def test_ticks_out_of_order_are_refused():
    with pytest.raises(DataError, match=says(2, "tick 1")):
        bars_of_ticks(np.array([10**9, 10**9 - 1]), np.array([1.0, 1.0]), 60, "here")


def test_a_bar_after_a_hole_is_flagged():
    table = table_of([0, 1, 5, 6])
    assert follows_gap(table.bars, 60).tolist() == [False, False, True, False]


def test_files_are_joined_in_time_order_and_what_both_hold_is_kept_once():
    joined = join([table_of([5, 6, 7]), table_of([0, 1, 5])], "EURUSD")
    assert joined.bars.index.minute.tolist() == [0, 1, 5, 6, 7]
    assert len(joined.notes) == 1
    assert told(joined.notes[0], "EURUSD", "1 repeated")


def test_files_that_contradict_each_other_are_refused():
    other = table_of([5], [(1.0, 2.0, 0.5, 1.0)])
    with pytest.raises(DataError, match=says("EURUSD", "1")):
        join([table_of([4, 5]), other], "EURUSD")


def test_files_of_two_bar_sizes_are_not_joined():
    with pytest.raises(DataError, match=says("EURUSD", "60", "300")):
        join([table_of([0, 1]), table_of([5], seconds=300)], "EURUSD")


def test_a_repeat_is_found_wherever_it_stands():
    bars = table_of([0, 1, 2]).bars
    kept, notes = drop_repeats(pd.concat([bars, bars.iloc[:2]]), "here")
    pd.testing.assert_frame_equal(kept, bars, check_freq=False)
    assert len(notes) == 1
    assert told(notes[0], "here", "2 repeated")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("EURUSD_M5.parquet", "EURUSD"), ("DAT_ASCII_EURUSD_M1_202211.zip", "EURUSD"), ("EURUSD60.hst", "EURUSD"),
        ("HISTDATA_COM_MT_USDJPY_M1202502.zip", "USDJPY"), ("oanda-EUR_USD-2019-1_head.csv", "EURUSD"),
        ("20180403_eurusd_minute_quote.csv", "EURUSD"), ("USA500IDXUSD", "SPXUSD"), ("SPXUSD_M5.csv", "SPXUSD"),
        ("xauusd.csv", "XAUUSD"), ("bars.csv", ""), ("EURUSD_and_GBPUSD.csv", ""), ("EUREUR.csv", ""),
    ],
)  # fmt: skip
def test_an_instrument_is_told_by_a_name(text, name):
    assert guess_instrument(text) == name


@pytest.mark.parametrize(
    ("instrument", "typical", "scale"),
    [("EURUSD", 127_801.0, 1e5), ("EURUSD", 1.27801, 1.0), ("XAUUSD", 154_759.0, 100.0), ("XAUUSD", 1547.0, 1.0),
     ("USDJPY", 109_500.0, 1e3), ("USDJPY", 109.0, 1.0), ("SPXUSD", 2700.0, 1.0), ("USDSEK", 1_120_000.0, 1e5),
     ("BTCUSD", 127_801.0, 1.0), ("EURUSD", 5.0e9, 1.0)],
)  # fmt: skip
def test_points_are_told_by_a_price_that_nothing_else_explains(instrument, typical, scale):
    assert points_scale(instrument, typical) == scale


def test_dukascopy_counts_in_its_own_digits():
    names = ("EURUSD", "USDJPY", "EURJPY", "XAUUSD", "SPXUSD", "USDSEK")
    assert [point_digits(name) for name in names] == [5, 3, 3, 3, 3, 5]
