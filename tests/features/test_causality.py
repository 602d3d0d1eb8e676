"""The check that features know only the past: it passes what is causal and cannot be fooled."""

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core.errors import DataError
from sac_kernel.features.causality import assert_causal
from sac_kernel.features.pipeline import FeaturePipeline
from tests.conftest import make_bars
from tests.support import says, told


class Pipeline:
    """Somebody's own: any object with `compute`."""

    def __init__(self, *columns):
        self.columns = columns

    def compute(self, bars):
        close = bars["close"]
        return pd.DataFrame({f.__name__: f(close) for f in self.columns}, index=bars.index)


def change(close):
    return close.pct_change()


def average_of_four(close):
    return close.rolling(4).mean()


def next_return(close):
    return close.shift(-1) / close - 1.0


def in_an_hour(close):
    """Three bars ahead: editing only the next bar would miss it."""
    return close.shift(-3)


def against_the_mean_of_all(close):
    return close - close.mean()


def centred(close):
    return close.rolling(5, center=True).mean()


def filled_backwards(close):
    return close.where(np.arange(len(close)) % 7 != 3).bfill()


def test_a_causal_pipeline_passes_and_says_what_was_checked():
    report = assert_causal(Pipeline(change, average_of_four), make_bars(800), rows=7)
    assert (report.rows, report.features, report.memory_bars) == (7, 2, 16)
    assert told(report, "7 rows", "2 features")


def test_this_package_passes():
    assert assert_causal(FeaturePipeline(), make_bars(1500), rows=5).features == 16


@pytest.mark.parametrize(
    "leak", [next_return, in_an_hour, against_the_mean_of_all, centred, filled_backwards]
)
def test_each_kind_of_leak_is_named(leak):
    with pytest.raises(DataError, match=says("row ", "2017-", leak.__name__)):
        assert_causal(Pipeline(change, leak), make_bars(800), rows=30)


def test_a_scaler_fitted_on_every_bar_is_a_leak():
    class Scaled(FeaturePipeline):
        def compute(self, bars):
            raw = super().compute(bars)
            return (raw - raw.mean()) / raw.std()

    with pytest.raises(DataError, match=says("eurusd_return_1h, eurusd_return_4h, eurusd_return_1d")):
        assert_causal(Scaled(), make_bars(800), rows=3)


def test_a_column_that_comes_and_goes_with_the_future_is_a_leak():
    class Sometimes(Pipeline):
        def compute(self, bars):
            frame = super().compute(bars)
            return frame.assign(rare=1.0) if len(bars) > 700 else frame

    with pytest.raises(DataError, match=says("rare")):
        assert_causal(Sometimes(change), make_bars(800, 3), rows=5)


def test_bars_on_which_the_check_cannot_fail_are_refused():
    bars = make_bars(300)
    bars.iloc[:, :] = 0.0
    with pytest.raises(DataError, match=says("bars")):
        assert_causal(Pipeline(change), bars)


def test_a_memory_longer_than_the_bars_is_said():
    def since_the_start(close):
        return close - close.iloc[0]

    report = assert_causal(Pipeline(since_the_start), make_bars(400), rows=3)
    assert report.memory_bars is None
    assert "None" not in str(report)


def test_the_memory_is_the_smallest_power_of_two_that_suffices():
    def average_of_a_hundred(close):
        return close.rolling(100).mean()

    # The last five rows need 104 bars.
    assert assert_causal(Pipeline(average_of_a_hundred), make_bars(800), rows=2).memory_bars == 128


def test_at_most_twenty_thousand_bars_are_read():
    read = []

    class Counts(Pipeline):
        def compute(self, bars):
            read.append(len(bars))
            return super().compute(bars)

    assert_causal(Counts(change), make_bars(20_500, bar_seconds=300, weekends=False), rows=1)
    assert max(read) == 20_000
