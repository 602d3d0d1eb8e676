"""Regimes: fitted on train bars by hmmlearn, filtered by our own forward recursion, never smoothed."""

import builtins
import sys

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core.errors import ConfigError, DataError, InputNotFoundError
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.features.regimes import COVARIANCE_FLOOR, RegimeDetector, observations
from tests.conftest import make_bars, make_data
from tests.support import says

hmmlearn = pytest.importorskip("hmmlearn.hmm")

H1 = 3600


def two_regime_bars(n=4000, seed=0):
    """Hours that are calm (.05 %) or wild (.2 %), staying 98 % of the time; returns the bars and the states."""
    rng = np.random.default_rng(seed)
    state = np.zeros(n, int)
    for t in range(1, n):
        state[t] = state[t - 1] if rng.random() < 0.98 else 1 - state[t - 1]
    sigma = np.array([5e-4, 2e-3])[state]
    close = 1.1 * np.exp(np.cumsum(rng.normal(0, sigma)))
    opened = np.concatenate(([1.1], close[:-1]))
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, sigma)))
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, sigma)))
    times = pd.date_range("2017-01-02", periods=n, freq="h", tz="UTC", name="open_time_utc")
    return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close}, index=times), state


@pytest.fixture(scope="module")
def market():
    return two_regime_bars()


@pytest.fixture(scope="module")
def detector(market):
    return RegimeDetector.fit(market[0].iloc[:2500], H1)


def as_hmmlearn(d):
    model = hmmlearn.GaussianHMM(2, "full", init_params="")
    model.startprob_, model.transmat_ = d.start, d.transition
    model.means_, model.covars_ = d.means, d.covariances
    model.n_features = d.means.shape[1]
    return model


def test_the_filter_is_the_forward_lattice_of_the_library(market, detector):
    from hmmlearn import _hmmc

    x = observations(market[0], H1)
    model = as_hmmlearn(detector)
    log_density = model._compute_log_likelihood((x - detector.center) / detector.scale)
    _, lattice = _hmmc.forward_log(detector.start, detector.transition, log_density)
    expected = np.exp(lattice - np.logaddexp(lattice[:, :1], lattice[:, 1:]))
    found = detector.filter(x)
    assert np.abs(found - expected).max() < 1e-10
    assert found.sum(axis=1) == pytest.approx(np.ones(len(x)), abs=1e-14)
    # The library's own answer is the smoothed one, and differs: it knows the future.
    smoothed = model.predict_proba((x - detector.center) / detector.scale)
    assert np.abs(found - smoothed).max() > 0.1


def test_the_filter_of_two_bars_by_hand():
    # One observation, variances 1 and 4, start 1/2: densities at 2 are e^-2 and e^-.5 / 2, over sqrt(2 pi).
    d = RegimeDetector(
        np.zeros(1), np.ones(1), np.array([0.5, 0.5]), np.array([[0.9, 0.1], [0.2, 0.8]]),
        np.zeros((2, 1)), np.array([[[1.0]], [[4.0]]]),
    )  # fmt: skip
    calm, wild = np.exp(-2.0), np.exp(-0.5) / 2
    p = wild / (calm + wild)
    prior = (1 - p) * 0.1 + p * 0.8
    after = prior * 0.5 / (prior * 0.5 + (1 - prior) * 1.0)  # at 0 the densities are 1 and 1/2
    assert d.filter(np.array([[2.0], [0.0]]))[:, 1] == pytest.approx([p, after], abs=1e-14)


def test_planted_regimes_are_found_and_ordered(market, detector):
    assert detector.covariances[1, 0, 0] > detector.covariances[0, 0, 0]
    prob = detector.high_vol_prob(market[0], H1)[2500:]
    truth = market[1][2500:]
    assert np.mean((prob > 0.5) == truth) > 0.85
    assert detector.transition.sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-9)
    assert np.diag(detector.transition) == pytest.approx([0.98, 0.98], abs=0.03)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_does_not_depend_on_the_start(market, detector, seed):
    other = RegimeDetector.fit(market[0].iloc[:2500], H1, seed=seed * 10)
    prob, again = (d.high_vol_prob(market[0], H1) for d in (detector, other))
    assert np.abs(prob - again).max() < 0.05


def test_a_row_knows_only_its_past(market, detector):
    bars = market[0]
    full = detector.high_vol_prob(bars, H1)
    for t in (5, 100, 2499, 2501, 3990):
        assert detector.high_vol_prob(bars.iloc[: t + 1], H1)[-1] == full[t]


def test_the_state_is_plain_and_complete(market, detector):
    again = RegimeDetector.from_state(detector.state())
    assert again.state() == detector.state()
    assert all(isinstance(value, list) for value in detector.state().values())
    assert np.array_equal(again.high_vol_prob(market[0], H1), detector.high_vol_prob(market[0], H1))


def test_a_market_that_stands_still_in_one_regime_keeps_a_floor():
    bars = make_bars(900, 2)
    bars.iloc[300:600] = 1.1
    d = RegimeDetector.fit(bars, H1, restarts=2)
    for covariance in d.covariances:
        assert np.linalg.eigvalsh(covariance).min() >= COVARIANCE_FLOOR * (1 - 1e-9)
    assert np.isfinite(d.high_vol_prob(bars, H1)).all()


def test_too_few_bars_and_restarts_are_refused():
    with pytest.raises(DataError, match=says(500, 499)):
        RegimeDetector.fit(make_bars(499), H1)
    with pytest.raises(ConfigError, match=says("restarts", 0)):
        RegimeDetector.fit(make_bars(600), H1, restarts=0)


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "hmmlearn":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(sys.modules, "hmmlearn", raising=False)
    with pytest.raises(InputNotFoundError, match=says("hmmlearn")):
        RegimeDetector.fit(make_bars(600), H1)


# -- in the feature pipeline


@pytest.fixture(scope="module")
def with_regimes():
    data = make_data(3000, 4)
    pipeline = FeaturePipeline(regimes=True)
    return data, pipeline, pipeline.run_full_pipeline(data.train, data.val, data.test)


def test_the_pipeline_appends_the_filtered_probability(with_regimes):
    data, pipeline, (train, val, test) = with_regimes
    plain = FeaturePipeline()
    without, *_ = plain.run_full_pipeline(data.train, data.val, data.test)
    assert pipeline.feature_names == [*plain.feature_names, "regime_high_vol_prob"]
    pd.testing.assert_frame_equal(train[plain.feature_names], without, check_exact=True)
    for part in (train.iloc[48:], val, test):
        assert np.isfinite(part.to_numpy()).all()
    raw = pipeline.compute(data.train["EURUSD"])["regime_high_vol_prob"]
    assert raw.between(0, 1).all()


def test_the_model_knows_nothing_of_validation_and_test(with_regimes):
    data, pipeline, _ = with_regimes
    other = make_data(3000, 5)
    again = FeaturePipeline(regimes=True)
    again.run_full_pipeline(data.train, {"EURUSD": other.val["EURUSD"] * 3}, {"EURUSD": other.test["EURUSD"]})
    assert again.state() == pipeline.state()


def test_a_saved_pipeline_filters_without_the_package_and_never_refits(with_regimes, monkeypatch):
    data, pipeline, parts = with_regimes
    monkeypatch.setitem(sys.modules, "hmmlearn", None)
    again = FeaturePipeline.from_state(pipeline.state())
    for one, other in zip(again.run_full_pipeline(data.train, data.val, data.test), parts, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert again.state() == pipeline.state()
