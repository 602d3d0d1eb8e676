"""Bars say their side, length and instrument: what keeps it, what loses it, and who decides where it is missing."""

import copy
import pickle

import pandas as pd
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.features.forecast_input import next_returns
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import prepare_market
from sac_kernel.prices.bars import Bars, concat_bars, seconds_of, side_of
from tests.conftest import make_bars, make_data

SAID = ("ask", 1800, "GBPUSD")


@pytest.fixture
def asks():
    return Bars(make_bars(40), side="ask", seconds=1800, instrument="GBPUSD")


def said(bars):
    return (bars.side, bars.seconds, bars.instrument)


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b[b["close"] > b["open"]],
        lambda b: b.iloc[3:9],
        lambda b: b.iloc[[1, 4]],
        lambda b: b[5:],
        lambda b: b.loc[b.index[2] :],
        lambda b: b.copy(),
        copy.deepcopy,
        lambda b: pickle.loads(pickle.dumps(b)),
        lambda b: b * 1.1,
        lambda b: b.assign(close=1.1),
        lambda b: b.set_axis(b.index + pd.Timedelta("1h")),
        lambda b: b.shift(freq="1h"),
        lambda b: b.drop(b.index[[3]]),
        lambda b: b.sort_index(),
        lambda b: b.rename_axis("time"),
        Bars,
    ],
    ids=["mask", "slice", "rows", "getitem", "loc", "copy", "deepcopy", "pickle", "times", "assign",
         "set_axis", "shift", "drop", "sort", "rename", "again"],
)  # fmt: skip
def test_what_is_made_of_bars_says_the_same(asks, change):
    made = change(asks)
    assert type(made) is Bars
    assert said(made) == SAID


def test_what_pandas_puts_together_says_nothing(asks):
    bids = make_bars(80).iloc[40:]
    for made in (pd.concat([asks, bids]), asks.resample("4h").agg({"open": "first", "close": "last"})):
        assert getattr(made, "side", "") == ""
        with pytest.raises(DataError):
            side_of(made, "here")
    assert not pd.concat([asks, bids]).attrs


def test_plain_tables_are_made_into_bars_and_back(asks):
    plain = pd.DataFrame(asks)
    assert type(plain) is pd.DataFrame
    assert said(Bars(plain, side="mid", seconds=60)) == ("mid", 60, "")
    assert said(Bars(asks, side="bid")) == ("bid", 1800, "GBPUSD")
    assert isinstance(asks["close"], pd.Series)
    pd.testing.assert_frame_equal(Bars(plain, side="mid"), asks, check_frame_type=False)


@pytest.mark.parametrize("wrong", [{"side": "last"}, {"seconds": -1}])
def test_attributes_that_cannot_be_are_refused(wrong):
    with pytest.raises(DataError):
        Bars(make_bars(3), **wrong)


def test_stretches_are_joined_where_they_agree(asks):
    whole = concat_bars([asks.iloc[:10], asks.iloc[20:]])
    assert said(whole) == SAID
    assert whole.to_numpy().tolist() == pd.concat([asks.iloc[:10], asks.iloc[20:]]).to_numpy().tolist()
    for other in ({"side": "bid"}, {"seconds": 60}, {"instrument": "EURUSD"}):
        with pytest.raises(DataError, match=next(iter(other))):
            concat_bars([asks.iloc[:10], Bars(asks.iloc[20:], **other)])


# -- one rule for bars that do not say their side


@pytest.mark.parametrize(
    ("own", "stated", "side"),
    [("bid", None, "bid"), ("bid", "bid", "bid"), ("", "mid", "mid"), ("ask", "ask", "ask")],
)
def test_the_side_is_what_the_bars_say_or_what_is_stated_of_silent_ones(own, stated, side):
    assert side_of(Bars(make_bars(3), side=own), "here", stated) == side


@pytest.mark.parametrize(("own", "stated"), [("", None), ("bid", "ask"), ("", "last")])
def test_no_side_or_two_are_refused_at_the_place(own, stated):
    with pytest.raises(DataError, match=r"^here: "):
        side_of(Bars(make_bars(3), side=own), "here", stated)


def test_bars_without_a_side_are_refused_wherever_it_matters():
    data = make_data(1600)
    plain = {name: {"EURUSD": pd.DataFrame(part["EURUSD"])} for name, part in data.splits.items()}
    features = FeaturePipeline().run_full_pipeline(*plain.values())[0]
    bars, remedy = (
        plain["train"]["EURUSD"],
        r"TradingEnvConfig\(price_side=...\), or give Bars\(bars, side=...\)",
    )
    with pytest.raises(DataError, match=remedy):
        next_returns(bars, 3600)
    with pytest.raises(DataError, match=remedy):
        FeaturePipeline(forecast=True).run_full_pipeline(*plain.values())
    with pytest.raises(DataError, match=remedy):
        prepare_market(bars, features, TradingEnvConfig(), close_at_end=True)


def test_a_length_that_bars_do_not_say_is_their_usual_distance(asks):
    assert seconds_of(asks, "here") == 1800
    assert seconds_of(pd.DataFrame(asks), "here") == 3600
