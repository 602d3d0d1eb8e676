"""Features know only the past, mean what they say, and are scaled by the train rows alone."""

import numpy as np
import pandas as pd
import pytest

from sac_kernel.core import files
from sac_kernel.core.errors import CheckpointError, DataError
from sac_kernel.features import columns, indicators
from sac_kernel.features import pipeline as feature_engineering
from sac_kernel.features.indicators import log_path
from sac_kernel.features.pipeline import CLIP, FeaturePipeline
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.pipeline import DataConfig
from tests.conftest import make_bars, make_data
from tests.support import compute_features, says

H1, M15, M5 = 3600, 900, 300
TIMES = [
    "hour_sin",
    "hour_cos",
    "weekday_sin",
    "weekday_cos",
    "tokyo_open",
    "london_open",
    "new_york_open",
]
INDICATORS = [
    "eurusd_rsi_4h",
    "eurusd_macd_4h",
    "eurusd_atr_ratio_4h_1d",
    "eurusd_parkinson_1h",
    "eurusd_bollinger_4h",
    "eurusd_adx_4h",
]
LONG_RETURNS = ["eurusd_return_1h", "eurusd_return_4h", "eurusd_return_1d"]
NAMES = {
    M5: ["eurusd_return_5m", *LONG_RETURNS, *INDICATORS, *TIMES],
    M15: [*LONG_RETURNS, *INDICATORS, *TIMES],
    H1: [*LONG_RETURNS, *INDICATORS, *TIMES],
}
SIZES = pytest.mark.parametrize("seconds", [M5, M15, H1], ids=["m5", "m15", "h1"])


def features_of(bars, seconds=H1):
    return compute_features(bars, seconds, "EURUSD")


def bars_at(times, seconds=H1):
    index = pd.DatetimeIndex(times, tz="UTC", name="open_time_utc")
    return pd.DataFrame(1.1, index=index, columns=["open", "high", "low", "close"])


# -- which features exist


@SIZES
def test_the_features_of_each_bar_size_by_name(seconds):
    assert list(features_of(make_bars(50, bar_seconds=seconds), seconds).columns) == NAMES[seconds]


def test_a_horizon_shorter_than_the_bar_is_dropped():
    # Bars of four hours keep the returns of four hours and a day.
    columns = features_of(make_bars(50, bar_seconds=14_400), 14_400).columns
    assert [c for c in columns if "return" in c] == ["eurusd_return_4h", "eurusd_return_1d"]


def test_names_carry_the_instrument():
    assert "gbpusd_rsi_4h" in compute_features(make_bars(50), H1, "GBPUSD").columns


# -- causality


@SIZES
@pytest.mark.parametrize("seed", [0, 1])
def test_every_feature_of_a_row_is_the_same_without_its_future(seconds, seed):
    bars = make_bars(1500, seed, seconds)
    full = features_of(bars, seconds)
    rows = [0, 1, 2, 3, 5, 10, 47, 49, 120, *np.random.default_rng(seed).integers(150, 1499, 15)]
    for t in rows:
        last = features_of(bars.iloc[: t + 1], seconds).iloc[-1]
        assert last.to_numpy().tobytes() == full.iloc[t].to_numpy().tobytes(), f"row {t}"


@SIZES
def test_no_feature_sees_an_edit_of_the_future(seconds):
    bars = make_bars(1500, 2, seconds)
    full = features_of(bars, seconds)
    for t in (60, 700, 1498):
        edited = bars.copy()
        edited.iloc[t + 1 :] *= np.random.default_rng(t).uniform(0.5, 2.0, (1499 - t, 1))
        assert features_of(edited, seconds).iloc[: t + 1].equals(full.iloc[: t + 1])


@SIZES
def test_every_price_feature_sees_its_own_bar(seconds):
    # What is known at the close is used: no feature lags by a bar.
    bars = make_bars(1500, 3, seconds)
    full = features_of(bars, seconds).iloc[-1]
    bars.iloc[-1, [1, 3]] *= 1.002
    changed = features_of(bars, seconds).iloc[-1]
    prices = [name for name in full.index if name.startswith("eurusd")]
    assert (full[prices] != changed[prices]).all()


# -- the gap-free path


def test_no_return_spans_a_weekend():
    # Friday's last close 1.00; Monday opens at 1.50 and closes at 1.515: the return is 1 %, not 51.5 %.
    times = ["2017-01-13 20:00", "2017-01-13 21:00", "2017-01-15 22:00", "2017-01-15 23:00"]
    bars = bars_at(times)
    bars.loc[:] = [[1.0] * 4, [1.0] * 4, [1.5, 1.515, 1.5, 1.515], [1.515, 1.53, 1.515, 1.53]]
    path = log_path(bars, H1)
    assert path.bar_return == pytest.approx([0.0, 0.0, np.log(1.01), np.log(1.53 / 1.515)], abs=1e-15)
    assert path.close == pytest.approx([0.0, 0.0, np.log(1.01), np.log(1.02)], abs=1e-15)
    # Within a row of bars the step from close to open counts: the second bar opens 1 % up.
    joined = bars_at(["2017-01-10 10:00", "2017-01-10 11:00"])
    joined.loc[:] = [[1.0] * 4, [1.01, 1.01, 1.01, 1.01]]
    assert log_path(joined, H1).bar_return == pytest.approx([0.0, np.log(1.01)], abs=1e-15)


@SIZES
def test_a_jump_over_the_weekend_changes_no_feature(seconds):
    bars = make_bars(3000, 4, seconds, start="2017-01-12T00:00:00Z")
    monday = int(np.argmax(np.diff(bars.index.asi8) > 40 * H1 * 10**9)) + 1
    assert monday > 1
    jumped = bars.copy()
    jumped.iloc[monday:] *= 1.25
    before, after = features_of(bars, seconds), features_of(jumped, seconds)
    assert after.to_numpy() == pytest.approx(before.to_numpy(), rel=1e-6, abs=1e-6)


def test_range_of_a_bar_is_kept_on_the_path():
    bars = make_bars(300, 5)
    path = log_path(bars, H1)
    assert path.high - path.low == pytest.approx(np.log(bars["high"] / bars["low"]).to_numpy(), abs=1e-12)
    assert np.all(path.high >= path.close - 1e-15)


# -- what the features are


def slow_returns(bars, seconds, minutes, half_life):
    """Returns over a horizon of bars in sigmas, by plain loops."""
    n = max(1, minutes * 60 // seconds)
    log_open, log_close = np.log(bars["open"].to_numpy()), np.log(bars["close"].to_numpy())
    stamps = bars.index.asi8 // 10**9
    steps = []
    for i in range(len(bars)):
        follows = i > 0 and stamps[i] - stamps[i - 1] <= seconds
        steps.append(log_close[i] - (log_close[i - 1] if follows else log_open[i]))
    decay, weight, square, found = 0.5 ** (1.0 / half_life), 0.0, 0.0, []
    for i, step in enumerate(steps):
        weight, square = weight * decay + 1.0, square * decay + step**2
        window = steps[max(0, i - n + 1) : i + 1] if i >= n else steps[1 : i + 1]
        found.append(sum(window) / (np.sqrt(square / weight) * np.sqrt(n)))
    return np.array(found)


@pytest.mark.parametrize(("name", "minutes"), [("1h", 60), ("4h", 240), ("1d", 1440)])
@pytest.mark.parametrize("seconds", [M15, H1])
def test_returns_agree_with_a_slow_loop(seconds, name, minutes):
    bars = make_bars(600, 6, seconds)
    found = features_of(bars, seconds)[f"eurusd_return_{name}"].to_numpy()
    expected = slow_returns(bars, seconds, minutes, 86_400 // seconds)
    assert found == pytest.approx(expected, abs=1e-9)


@SIZES
def test_the_returns_of_several_horizons_are_different_columns(seconds):
    table = features_of(make_bars(1500, 7, seconds), seconds)
    returns = table[[c for c in table.columns if "return" in c]].iloc[-800:]
    correlation = np.corrcoef(returns.to_numpy().T)
    assert np.all(correlation[np.triu_indices(len(correlation), 1)] < 0.9)
    # A sum of n independent steps shares n/m of the variance of a sum of m: 1 h and 1 d have sqrt(1/24) = .2.
    assert returns["eurusd_return_1h"].corr(returns["eurusd_return_1d"]) == pytest.approx(0.2, abs=0.15)


def test_volatility_is_the_weighted_root_mean_square():
    # Half-life 1: weights 1/4, 1/2, 1 on squares 9, 16, 0 -> (2.25 + 8) / 1.75.
    found = indicators.ewma_volatility(np.array([3.0, -4.0, 0.0]), 1)
    assert found == pytest.approx([3.0, np.sqrt((4.5 + 16) / 1.5), np.sqrt(10.25 / 1.75)], abs=1e-12)


def test_parkinson_volatility_by_hand():
    # Ranges .02 and .04: squares .0004 and .0016 over 4 ln 2, mean of two bars; the first row repeats its own.
    path = indicators.LogPath(np.array([0.02, 0.04]), np.zeros(2), np.array([0.01, 0.01]), np.zeros(2))
    scale = 4 * np.log(2)
    expected = [np.sqrt(0.0004 / scale), np.sqrt(0.001 / scale)]
    assert indicators.parkinson_volatility(path, 2) == pytest.approx(expected, abs=1e-15)


@pytest.fixture(scope="module")
def gap_free():
    bars = make_bars(3000, 8, M15)
    return log_path(bars, M15)


@pytest.fixture(scope="module")
def talib():
    return pytest.importorskip("talib")


@pytest.mark.parametrize("n", [4, 14, 48])
def test_rsi_is_wilders(gap_free, talib, n):
    expected = talib.RSI(gap_free.close, n)
    assert np.isfinite(expected[n:]).all()
    assert indicators.rsi(gap_free.close, n)[n:] == pytest.approx(expected[n:], abs=1e-8)


@pytest.mark.parametrize("n", [4, 14, 96])
def test_atr_is_wilders(gap_free, talib, n):
    expected = talib.ATR(gap_free.high, gap_free.low, gap_free.close, n)
    assert indicators.atr(gap_free, n)[n:] == pytest.approx(expected[n:], rel=1e-9)


@pytest.mark.parametrize("n", [4, 14, 48])
def test_adx_is_wilders(gap_free, talib, n):
    expected = talib.ADX(gap_free.high, gap_free.low, gap_free.close, n)
    first = 2 * n - 1  # n bars for the first DX, n of those for their average
    assert np.isnan(expected[first - 1])
    assert indicators.adx(gap_free, n)[first:] == pytest.approx(expected[first:], abs=1e-9)


@pytest.mark.parametrize("n", [4, 16, 48])
def test_bollinger_position_is_the_librarys(gap_free, talib, n):
    upper, middle, _ = talib.BBANDS(gap_free.close, n, 2.0, 2.0)
    expected = (gap_free.close - middle) / (upper - middle)
    found = indicators.bollinger_position(gap_free.close, n)
    assert found[n - 1 :] == pytest.approx(expected[n - 1 :], abs=1e-5)


@pytest.mark.parametrize(("n", "slow", "signal"), [(12, 26, 9), (16, 35, 12), (4, 9, 3)])
def test_macd_histogram_is_the_librarys_after_its_start_has_faded(gap_free, talib, n, slow, signal):
    # Spans in the proportion 12 : 26 : 9; round(16 x 26 / 12) = 35, round(16 x 9 / 12) = 12.
    expected = talib.MACD(gap_free.close, n, slow, signal)[2]
    assert indicators.macd_histogram(gap_free.close, n)[600:] == pytest.approx(expected[600:], abs=1e-12)


def test_indicators_enter_in_one_scale(gap_free):
    bars = make_bars(3000, 8, M15)
    table = features_of(bars, M15)
    path = log_path(bars, M15)
    n = 16  # four hours
    sigma = indicators.ewma_volatility(path.bar_return, 96)
    assert table["eurusd_rsi_4h"].to_numpy() == pytest.approx(indicators.rsi(path.close, n) / 50 - 1)
    assert table["eurusd_adx_4h"].to_numpy() == pytest.approx(indicators.adx(path, n) / 50 - 1)
    macd = indicators.macd_histogram(path.close, n) / (sigma * 4)
    assert table["eurusd_macd_4h"].to_numpy() == pytest.approx(macd)
    ratio = np.log(np.divide(*(indicators.atr(path, k) for k in (n, 96))))
    assert table["eurusd_atr_ratio_4h_1d"].to_numpy()[1:] == pytest.approx(ratio[1:], abs=1e-4)


@SIZES
def test_features_have_no_dimension(seconds):
    # Yen quote a hundred times the price: the features are the same.
    bars = make_bars(1000, 9, seconds)
    assert features_of(bars * 137.0, seconds).to_numpy() == pytest.approx(
        features_of(bars, seconds).to_numpy(), rel=1e-6, abs=1e-6
    )


def test_a_market_that_stands_still_has_finite_features():
    bars = bars_at(pd.date_range("2017-01-09", periods=200, freq="h"))
    assert np.isfinite(features_of(bars).to_numpy()).all()


# -- the clock


def time_row(open_utc, seconds=H1):
    index = pd.DatetimeIndex([open_utc], tz="UTC")
    return {k: float(v[0]) for k, v in columns.time_features(index, seconds).items()}


@pytest.mark.parametrize(
    ("open_utc", "hour"),
    [
        ("2017-03-10 16:00", 12),  # closes 17:00 UTC: noon in New York on the Friday before its switch
        ("2017-03-13 15:00", 12),  # 16:00 UTC: noon on the Monday after
        ("2017-11-03 15:00", 12),
        ("2017-11-06 16:00", 12),
        ("2017-01-10 22:00", 18),
        ("2017-07-11 03:00", 0),
    ],
)
def test_the_hour_is_new_yorks_at_the_close(open_utc, hour):
    row = time_row(open_utc)
    assert row["hour_sin"] == pytest.approx(np.sin(2 * np.pi * hour / 24), abs=1e-12)
    assert row["hour_cos"] == pytest.approx(np.cos(2 * np.pi * hour / 24), abs=1e-12)


@pytest.mark.parametrize(
    ("close_utc", "session", "is_open"),
    [
        # London 08:00 to 16:30: UTC in winter, UTC+1 from 26 March to 29 October 2017.
        ("2017-03-24 07:45", "london_open", 0.0),
        ("2017-03-24 08:00", "london_open", 1.0),
        ("2017-03-24 16:15", "london_open", 1.0),
        ("2017-03-24 16:30", "london_open", 0.0),
        ("2017-03-27 06:45", "london_open", 0.0),
        ("2017-03-27 07:00", "london_open", 1.0),
        ("2017-03-27 15:30", "london_open", 0.0),
        ("2017-10-27 07:00", "london_open", 1.0),
        ("2017-10-30 07:00", "london_open", 0.0),
        # New York 08:00 to 17:00: UTC-5, UTC-4 from 12 March to 5 November 2017.
        ("2017-03-10 12:45", "new_york_open", 0.0),
        ("2017-03-10 13:00", "new_york_open", 1.0),
        ("2017-03-13 12:00", "new_york_open", 1.0),
        ("2017-03-13 21:00", "new_york_open", 0.0),
        ("2017-11-03 12:00", "new_york_open", 1.0),
        ("2017-11-06 12:00", "new_york_open", 0.0),
        ("2017-11-06 13:00", "new_york_open", 1.0),
        # Tokyo 09:00 to 18:00, UTC+9 all year.
        ("2017-01-10 00:00", "tokyo_open", 1.0),
        ("2017-01-09 23:45", "tokyo_open", 0.0),
        ("2017-07-11 08:45", "tokyo_open", 1.0),
        ("2017-07-11 09:00", "tokyo_open", 0.0),
        # Saturdays and Sundays are closed.
        ("2017-01-14 12:00", "london_open", 0.0),
        ("2017-01-15 14:00", "new_york_open", 0.0),
    ],
)
def test_sessions_follow_their_own_clock(close_utc, session, is_open):
    opened = pd.Timestamp(close_utc) - pd.Timedelta(minutes=15)
    assert time_row(opened, M15)[session] == is_open


@pytest.mark.parametrize(
    ("close_utc", "weekday"),
    [
        ("2017-01-08 23:00", 0),  # Sunday 18:00 New York is Monday's trading day
        ("2017-01-09 22:00", 0),  # Monday 17:00 closes it
        ("2017-01-09 23:00", 1),
        ("2017-01-13 21:00", 4),
        ("2017-01-13 22:00", 4),  # Friday 17:00
        ("2017-07-10 21:00", 0),  # an hour earlier in summer
        ("2017-07-10 22:00", 1),
    ],
)
def test_the_weekday_is_the_trading_days(close_utc, weekday):
    row = time_row(pd.Timestamp(close_utc) - pd.Timedelta(hours=1))
    assert row["weekday_sin"] == pytest.approx(np.sin(2 * np.pi * weekday / 5), abs=1e-12)
    assert row["weekday_cos"] == pytest.approx(np.cos(2 * np.pi * weekday / 5), abs=1e-12)


# -- the pipeline and its scaler


def run(data, pipeline=None):
    pipeline = pipeline or FeaturePipeline()
    return pipeline, pipeline.run_full_pipeline(data.train, data.val, data.test)


@pytest.fixture(scope="module")
def fitted(data):
    return run(data)


def test_each_split_has_its_bars_index_in_feature_order_as_float32(data, fitted):
    pipeline, parts = fitted
    assert pipeline.feature_names == NAMES[H1]
    for part, split in zip(parts, data.splits.values(), strict=True):
        assert part.index.equals(split["EURUSD"].index)
        assert list(part.columns) == NAMES[H1]
        assert set(part.dtypes) == {np.dtype(np.float32)}


def test_only_the_first_two_days_of_train_have_no_features(fitted):
    _, (train, val, test) = fitted
    assert train.iloc[:48].isna().all().all()
    assert np.isfinite(train.iloc[48:].to_numpy()).all()
    assert np.isfinite(val.to_numpy()).all()
    assert np.isfinite(test.to_numpy()).all()


@pytest.mark.parametrize(("seconds", "rows"), [(M5, 576), (M15, 192), (H1, 48), (7000, 25)])
def test_the_warm_up_is_two_days_of_bars(seconds, rows):
    assert feature_engineering.warmup_bars(seconds) == rows


def test_train_features_are_standardised_and_all_are_clipped(fitted):
    _, (train, val, test) = fitted
    used = train.iloc[48:].astype(np.float64)
    # Clipping at five sigmas moves these a little.
    assert used.mean().to_numpy() == pytest.approx(np.zeros(16), abs=0.02)
    assert used.std(ddof=0).to_numpy() == pytest.approx(np.ones(16), abs=0.03)
    everything = pd.concat([used, val, test]).to_numpy()
    assert np.abs(everything).max() <= CLIP


def test_prices_far_out_are_clipped_to_five_sigmas():
    bars = make_bars(2400)
    crash = bars.copy()
    crash.iloc[2300:] *= 0.5
    data = split_table(BarTable(crash, "", "UTC"), DataConfig())
    _, (_, _, test) = run(data)
    assert test["eurusd_return_1h"].min() == -CLIP
    assert test["eurusd_return_1h"].max() <= CLIP


def test_the_scaler_is_the_mean_and_deviation_of_the_train_rows(data, fitted):
    pipeline, _ = fitted
    raw = features_of(data.train["EURUSD"]).iloc[48:]
    state = pipeline.state()
    assert state["mean"] == pytest.approx(raw.mean().to_numpy(), rel=1e-12, abs=1e-15)
    assert state["std"] == pytest.approx(raw.std(ddof=0).to_numpy(), rel=1e-12)


def test_the_scaler_knows_nothing_of_validation_and_test(data, fitted):
    other = make_data(seed=77)
    changed = {"EURUSD": other.val["EURUSD"] * 3}, {"EURUSD": other.test["EURUSD"] / 2}
    pipeline = FeaturePipeline()
    train, _, _ = pipeline.run_full_pipeline(data.train, *changed)
    assert pipeline.state() == fitted[0].state()
    assert train.equals(fitted[1][0])


def test_the_scaler_sees_every_train_row_after_the_warm_up(data, fitted):
    bars = data.train["EURUSD"].copy()
    bars.iloc[-1, [1, 3]] *= 1.01
    pipeline = FeaturePipeline()
    pipeline.run_full_pipeline({"EURUSD": bars}, data.val, data.test)
    assert pipeline.state() != fitted[0].state()


def test_a_second_run_is_fitted_on_its_own_train_rows(data, fitted):
    other = make_data(seed=5, sigma=3e-3)
    reused, expected = FeaturePipeline(), FeaturePipeline()
    run(data, reused)
    run(other, reused)
    run(other, expected)
    assert reused.state() == expected.state()


def test_a_pipeline_from_its_state_never_refits(data, fitted):
    state = fitted[0].state()
    again, parts = run(make_data(seed=5, sigma=3e-3), FeaturePipeline.from_state(state))
    assert again.state() == state
    _, same = run(data, FeaturePipeline.from_state(state))
    for one, other in zip(same, fitted[1], strict=True):
        assert one.equals(other)
    assert not parts[0].equals(fitted[1][0])


def test_a_pipeline_survives_a_checkpoint(tmp_path, data, fitted):
    path = tmp_path / "agent.pt"
    files.write_bytes(path, files.pt_bytes({"features": fitted[0].state()}))
    loaded, parts = run(data, FeaturePipeline.from_checkpoint(path))
    assert loaded.state() == fitted[0].state()
    assert parts[2].equals(fitted[1][2])


def test_a_checkpoint_without_features_is_refused(tmp_path):
    files.write_bytes(tmp_path / "a.pt", files.pt_bytes({"actor": 1}))
    with pytest.raises(CheckpointError, match=says("a.pt", "features")):
        FeaturePipeline.from_checkpoint(tmp_path / "a.pt")


def test_a_time_has_the_same_features_whichever_split_it_is_in(data, fitted):
    # The last 50 train bars are given to validation: with the same scaler every row stays what it was.
    train, val = data.train["EURUSD"], data.val["EURUSD"]
    moved = {"EURUSD": train.iloc[:-50]}, {"EURUSD": pd.concat([train.iloc[-50:], val])}
    other = FeaturePipeline.from_state(fitted[0].state()).run_full_pipeline(*moved, data.test)
    assert pd.concat(other).equals(pd.concat(fitted[1]))


def test_bars_of_another_size_do_not_fit_the_scaler(fitted):
    with pytest.raises(CheckpointError, match=says("bar_seconds", 3600, 900)):
        run(make_data(6000, bar_seconds=M15), FeaturePipeline.from_state(fitted[0].state()))


def test_features_of_another_name_do_not_fit_the_scaler(data, fitted):
    state = fitted[0].state()
    state["names"] = [*state["names"][:-1], "moon_phase"]
    with pytest.raises(CheckpointError, match=says("moon_phase", "new_york_open")):
        run(data, FeaturePipeline.from_state(state))


def test_a_missing_instrument_is_named(data):
    with pytest.raises(DataError, match=says("GBPUSD", "train", "EURUSD")):
        run(data, FeaturePipeline("GBPUSD"))


def test_fewer_train_bars_than_the_warm_up_are_refused(data):
    short = {"EURUSD": data.train["EURUSD"].iloc[-48:]}
    with pytest.raises(DataError, match=says("warm-up of 48", "48")):
        FeaturePipeline().run_full_pipeline(short, data.val, data.test)


def test_splits_out_of_order_are_refused(data):
    with pytest.raises(DataError, match=says("open times")):
        FeaturePipeline().run_full_pipeline(data.val, data.train, data.test)


def test_a_constant_feature_stays_as_zero():
    # Asia's bars alone: the New York session is never open.
    bars = make_bars(12_000)
    hour = bars.index.hour
    bars = bars[(hour >= 0) & (hour < 6)]
    data = split_table(BarTable(bars, "", "UTC"), DataConfig())
    _, (train, _, test) = run(data)
    assert (train["new_york_open"].iloc[48:] == 0.0).all()
    assert (test["new_york_open"] == 0.0).all()
