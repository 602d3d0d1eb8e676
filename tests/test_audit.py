"""The audit passes what is clean and trips on each leak planted on purpose."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sac_kernel import audit, evaluation
from sac_kernel.bar_engine import Bar
from sac_kernel.errors import DataError
from sac_kernel.feature_engineering import CLIP, FeaturePipeline, assert_causal
from sac_kernel.trading_env import TradingEnvConfig
from tests.conftest import make_data


@pytest.fixture(scope="module")
def data():
    return make_data(4000)


def market_of(data, features):
    return evaluation.market_of(data.train["EURUSD"], features, TradingEnvConfig(), "base")


@pytest.fixture(scope="module")
def clean(data):
    return market_of(data, FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)[0])


def test_nothing_earns_on_a_random_walk_before_costs(clean):
    found = audit.assert_nothing_earns(clean)
    assert set(found) == set(clean.feature_names)
    assert max(map(abs, found.values())) < 4.0


def test_t_value_is_that_of_the_signs_daily_gains(clean):
    # Free of costs: the log gain of a day is the sum of sign x (next open to next open), to first order.
    name = clean.feature_names[0]
    rows = np.arange(clean.first_bar, len(clean.bars) - 1)
    column = clean.observed[rows, 0]
    sign = np.sign(column - np.median(column))
    opened, closed = clean.bars[:, Bar.OPEN], clean.bars[:, Bar.CLOSE]
    gain = sign * np.log(closed[rows + 1] / opened[rows + 1])
    gain[1:] += sign[:-1] * np.log(opened[rows[1:] + 1] / closed[rows[1:]])
    daily = pd.Series(gain).groupby(clean.bars[rows + 1, Bar.DAY]).sum()
    expected = daily.mean() / daily.std() * np.sqrt(len(daily))
    assert audit.feature_t_values(clean)[name] == pytest.approx(expected, abs=0.1)


class FutureColumn(FeaturePipeline):
    """One column more: the next bar's return."""

    def run_full_pipeline(self, train, val, test):
        frames = super().run_full_pipeline(train, val, test)
        return tuple(
            frame.assign(
                tomorrow=(1000 * np.log(bars["EURUSD"]["close"]).diff().shift(-1))
                .clip(-CLIP, CLIP)
                .fillna(0.0)
            )
            for frame, bars in zip(frames, (train, val, test), strict=True)
        )

    def compute(self, bars):
        return super().compute(bars).assign(tomorrow=bars["close"].shift(-1))


def test_a_future_column_is_caught(data):
    pipeline = FutureColumn()
    leaky = market_of(data, pipeline.run_full_pipeline(data.train, data.val, data.test)[0])
    with pytest.raises(DataError, match=r"found tomorrow \(t = "):
        audit.assert_nothing_earns(leaky)
    with pytest.raises(DataError, match="found that tomorrow changed"):
        assert_causal(pipeline, data.train["EURUSD"])


def test_a_fill_in_the_bar_just_seen_is_caught(clean):
    # The decision sees the bar whose open it is filled at, as the first attempt at this system did.
    same_bar = dataclasses.replace(clean, observed=np.roll(clean.observed, -1, axis=0))
    with pytest.raises(DataError, match=r"found eurusd_\w+ \(t = .* fills are at a price already shown"):
        audit.assert_nothing_earns(same_bar)


def test_the_pipeline_is_fitted_on_train_rows_alone(data):
    audit.assert_fitted_on_train(
        lambda *splits: FeaturePipeline().run_full_pipeline(*splits), data.train, data.val, data.test
    )


def test_a_scaler_fitted_on_all_rows_is_caught(data):
    def on_all(train, val, test):
        raw = [FeaturePipeline().compute(part["EURUSD"]) for part in (train, val, test)]
        everything = pd.concat(raw)
        return tuple((frame - everything.mean()) / everything.std() for frame in raw)

    with pytest.raises(DataError, match="train features must not depend on validation and test bars"):
        audit.assert_fitted_on_train(on_all, data.train, data.val, data.test)
