"""Extra series: each bar has what was known at its close, alone, in a function, in a saved pipeline and live."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import build_kernel
from sac_kernel.backtest import runner
from sac_kernel.cli.build_checks import check_run
from sac_kernel.core.errors import CheckpointError, ConfigError, DataError, InputNotFoundError
from sac_kernel.core.homes import Home
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.features.causality import assert_causal
from sac_kernel.features.checks import OwnPipeline, read_series
from sac_kernel.features.indicators import Memory
from sac_kernel.features.own import OwnFeatures
from sac_kernel.features.pipeline import FeaturePipeline
from sac_kernel.features.series import Series
from sac_kernel.kaggle import wheels
from sac_kernel.live.decide import Decider
from sac_kernel.market import engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.records import Account, blank
from tests.conftest import make_bars, make_data
from tests.support import says
from tests.use_models import save_agent

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3600


def write(path, known, column="known_at", **values):
    pd.DataFrame({column: known, **values}).to_csv(path, index=False)
    return path


def weekly(path, bars, rows=None, seed=1):
    """A report each Friday at 15:30 in New York, from before the first bar on."""
    first, last = bars.index[0] - pd.Timedelta("30D"), bars.index[-1]
    days = pd.date_range(first.normalize(), last, freq="W-FRI").tz_localize(None)
    known = (days + pd.Timedelta("15h30min")).tz_localize("America/New_York")
    known = known[known < last][:rows]
    rng = np.random.default_rng(seed)
    net = rng.normal(0, 1e4, len(days)).round()[: len(known)]
    text = [moment.isoformat() for moment in known]
    return write(path, text, net=net, open_interest=2e5 + np.arange(len(known)))


def with_series(path, function=None):
    return OwnFeatures.of(function, read_series([path]))


def whole(data):
    return pd.concat([split["EURUSD"] for split in data.splits.values()])


# -- the join


def test_a_bar_has_the_last_value_known_at_its_close_by_hand(tmp_path):
    bars = make_bars(5, start="2024-01-08T10:00:00Z")  # closes 11:00 ... 15:00
    known = [
        "2024-01-08T11:00:00Z",
        "2024-01-08T07:00:01-05:00",
        "2024-01-08T13:59:59.5Z",
        "2024-01-08T15:00:00.5Z",
    ]
    (series,) = read_series([write(tmp_path / "vix.csv", known, close=[1.5, 2.5, 3.5, 4.5])])
    close = np.array([moment.value // 10**9 for moment in bars.index]) + HOUR
    table = series.joined(close)
    # 12:00:01 is after the close at 12:00; 13:59:59.5 is known at 14:00:00; 15:00:00.5 is after the last close.
    assert table["close"].tolist() == [1.5, 1.5, 2.5, 3.5, 3.5]
    hours = np.array([0, 1, 1 - 1 / 3600, 0, 1])
    np.testing.assert_allclose(table["age_days"], hours / 24, atol=1e-12)
    assert np.isnan(series.joined(close - HOUR).iloc[0]).all()  # 10:00: nothing is known


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_value_changes_no_row_before_it_is_known(drawn):
    rng = np.random.default_rng(drawn.draw(st.integers(0, 10**6)))
    known, numbers = np.sort(rng.choice(50_000, 12, replace=False)), rng.normal(size=(12, 2))
    close, k = np.arange(0, 60_000, 937), drawn.draw(st.integers(0, 11))
    edited = numbers + (np.arange(12) >= k)[:, None]
    series = Series("x", ("a", "b"), known, numbers, Path("x.csv"))
    gone = Series("x", ("a", "b"), known[:k], numbers[:k], Path("x.csv")) if k else None
    before, after = series.joined(close), dataclasses.replace(series, values=edited).joined(close)
    earlier = close < known[k]
    pd.testing.assert_frame_equal(before[earlier], after[earlier])
    assert (before[~earlier]["a"] != after[~earlier]["a"]).all()
    if gone is not None:
        pd.testing.assert_frame_equal(before[earlier], gone.joined(close)[earlier])


def test_an_edited_value_changes_no_feature_before_its_bar(tmp_path):
    data = make_data(900)
    path = weekly(tmp_path / "cot.csv", whole(data))
    frames = {}
    for name in ("as it is", "edited"):
        pipeline = FeaturePipeline(own=with_series(path))
        splits = (data.train, data.val, data.test)
        frames[name] = pd.concat(pipeline.run_full_pipeline(*splits))
        table = pd.read_csv(path)
        moment = pd.Timestamp(table["known_at"].iloc[-2]).tz_convert("UTC")
        table.loc[table.index[-2:], "net"] += 5e3
        table.to_csv(path, index=False)
    assert moment > data.val["EURUSD"].index[0]
    closes = frames["edited"].index + pd.Timedelta("1h")
    pd.testing.assert_frame_equal(*(frame[closes < moment] for frame in frames.values()))
    assert (frames["edited"]["cot_net"] != frames["as it is"]["cot_net"])[closes >= moment].all()


# -- in the table of features


def test_values_join_the_thirty_scaled_on_train_rows_from_the_first_one_on(tmp_path):
    bars = make_bars(900)
    opens = [
        bars.index[i].isoformat() for i in (101, 250, 400, 800)
    ]  # that of a bar is the close of the one before
    path = write(tmp_path / "mood.csv", opens, long=[1.0, 4.0, 2.0, 9.0])
    pipeline = FeaturePipeline(own=with_series(path))
    parts = ({"EURUSD": bars.iloc[a:z]} for a, z in ((0, 600), (600, 750), (750, 900)))
    frame = pd.concat(pipeline.run_full_pipeline(*parts))
    assert frame.columns[-1] == "mood_long"
    assert np.isfinite(frame.to_numpy()).all(axis=1).argmax() == 100
    hours = bars.index[[101, 250, 400, 800]] - pd.Timedelta("1h")
    assert hours.isin(bars.index).all()  # none of them begins a week
    counts = np.diff([0, 100, 249, 399, 799, 900])
    values = np.repeat([np.nan, 1.0, 4.0, 2.0, 9.0], counts)
    wanted = np.clip((values - values[100:600].mean()) / values[100:600].std(), -5, 5)
    np.testing.assert_allclose(frame["mood_long"].to_numpy()[100:], wanted[100:], atol=2e-6)
    assert pipeline.state()["own"]["names"] == ["mood_long"]


def test_series_alone_may_replace_the_thirty(tmp_path):
    data = make_data(900)
    pipeline = FeaturePipeline(own=with_series(weekly(tmp_path / "cot.csv", whole(data))), only_own=True)
    frame = pipeline.run_full_pipeline(data.train, data.val, data.test)[0]
    assert list(frame) == ["cot_net", "cot_open_interest"]
    assert pipeline.instruments == ()
    assert RunConfig(only_own_features=True, series_files=("cot.csv",)).series_files == ("cot.csv",)


def page_example(tmp_path):
    page = (ROOT / "docs" / "own-features.md").read_text(encoding="utf-8")
    code = next(block for block in page.split("```python\n") if block.startswith("# my_cot.py"))
    (tmp_path / "my_cot.py").write_text(code.split("```")[0], encoding="utf-8")
    return OwnFeatures.load(tmp_path / "my_cot.py")


def test_the_example_of_the_page_is_that_of_the_reports_and_looks_at_no_later_one(tmp_path):
    bars = make_bars(3000)
    path = weekly(tmp_path / "cot.csv", bars)
    own = with_series(path, page_example(tmp_path))
    table = OwnPipeline(own, "EURUSD", HOUR).compute(bars)
    reports = pd.read_csv(path)
    share = (reports["net"] / reports["open_interest"]).to_numpy()
    known = pd.to_datetime(reports["known_at"], utc=True)
    i = int(known.searchsorted(bars.index[2000] + pd.Timedelta("1h"), side="right")) - 1
    age = (bars.index[2000] + pd.Timedelta("1h") - known[i]) / pd.Timedelta("1D")
    assert 0 < age < 7
    assert table["cot_share"].iloc[2000] == pytest.approx(share[i], rel=1e-12)
    assert table["cot_news"].iloc[2000] == pytest.approx(share[i] * 0.5 ** (age / 2), rel=1e-9)
    assert assert_causal(OwnPipeline(own, "EURUSD", HOUR), {"EURUSD": bars}).features == 2
    frame = FeaturePipeline(own=own).run_full_pipeline(
        *({"EURUSD": bars.iloc[a:z]} for a, z in ((0, 2000), (2000, 2500), (2500, 3000)))
    )[0]
    assert list(frame.columns[-2:]) == ["cot_share", "cot_news"]  # and not the series as they are


def test_a_function_that_looks_ahead_in_a_series_is_refused(tmp_path):
    bars = make_bars(900)
    (tmp_path / "ahead.py").write_text(
        "def features(bars, series):\n    return series['cot'][['net']].bfill().shift(-1).ffill()\n"
    )
    own = with_series(weekly(tmp_path / "cot.csv", bars), OwnFeatures.load(tmp_path / "ahead.py"))
    with pytest.raises(DataError, match=says("Row", "net")):
        assert_causal(OwnPipeline(own, "EURUSD", HOUR), {"EURUSD": bars}, rows=200)


# -- what a file must be


GOOD = ["2024-01-05T15:30:00-05:00", "2024-01-12T15:30:00-05:00", "2024-01-19T15:30:00-05:00"]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"date": GOOD, "net": [1, 2, 3]}, ("cot.csv", "known_at", "date")),
        ({"known_at": GOOD, "known_at_utc": GOOD, "net": [1, 2, 3]}, ("known_at_utc",)),
        ({"known_at": ["2024-01-05 15:30", *GOOD[1:]], "net": [1, 2, 3]}, ("row 1", "known_at_utc", "15:30")),
        ({"known_at": [*GOOD[:2], "2024-01-19"], "net": [1, 2, 3]}, ("row 3", "2024-01-19")),
        ({"known_at_utc": ["2024-01-05", *GOOD[1:]], "net": [1, 2, 3]}, ("row 1", "2024-01-05")),
        ({"known_at": [GOOD[0], None, GOOD[2]], "net": [1, 2, 3]}, ("row 2", "known_at")),
        ({"known_at": [*GOOD[:2], "2024-13-19T15:30Z"], "net": [1, 2, 3]}, ("known_at", "2024-13-19T15:30Z")),
        ({"known_at": [GOOD[1], GOOD[0], GOOD[2]], "net": [1, 2, 3]}, ("row 2", "known_at")),
        ({"known_at": [GOOD[0], "2024-01-05T20:30:00Z", GOOD[2]], "net": [1, 2, 3]}, ("row 2", "20:30")),
        ({"known_at": GOOD, "net": [1, None, 3]}, ("row 2", "net")),
        ({"known_at": GOOD, "net": [1, 2, "inf"]}, ("row 3", "net", "inf")),
        ({"known_at": GOOD, "week": ["a", "b", "c"], "net": [1, 2, 3]}, ("row 1", "week", "a")),
        ({"known_at": GOOD}, ("cot.csv", 3)),
        ({"known_at": GOOD[:1], "net": [1]}, ("cot.csv", 1)),
        ({"known_at": GOOD, "age_days": [1, 2, 3]}, ("age_days",)),
    ],
)
def test_what_is_no_series_is_refused_with_its_place(columns, found, tmp_path):
    pd.DataFrame(columns).to_csv(tmp_path / "cot.csv", index=False)
    with pytest.raises(DataError, match=says(*found)):
        read_series([tmp_path / "cot.csv"])
    if "known_at_utc" not in columns or "known_at" not in columns:
        # The notebook's own reader refuses what would be wrong. One rule is of the command line alone.
        if "age_days" in columns or columns.keys() == {"known_at"}:
            return
        with pytest.raises(DataError, match=says("cot.csv")):
            Series.load(tmp_path / "cot.csv")


def test_files_that_are_absent_or_share_a_name_are_refused(tmp_path):
    with pytest.raises(InputNotFoundError, match=says("none.csv")):
        read_series([tmp_path / "none.csv"])
    (tmp_path / "b").mkdir()
    pair = [write(folder / "cot.csv", GOOD, net=[1, 2, 3]) for folder in (tmp_path, tmp_path / "b")]
    with pytest.raises(DataError, match=says("cot, cot")):
        read_series(pair)
    with pytest.raises(DataError, match=says("net 2.csv")):
        read_series([write(tmp_path / "net 2.csv", GOOD, net=[1, 2, 3])])
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match=says("empty.csv")):
        read_series([tmp_path / "empty.csv"])


def test_one_moment_is_one_moment_in_every_zone(tmp_path):
    utc = ["2024-01-05 20:30:00", "2024-01-12 20:30:00", "2024-01-19 20:30:00"]
    (tmp_path / "b").mkdir()
    (local,) = read_series([write(tmp_path / "cot.csv", GOOD, net=[1, 2, 3])])
    (plain,) = read_series([write(tmp_path / "b" / "cot.csv", utc, "known_at_utc", net=[1.0, 2.0, 3.0])])
    assert local.known.tolist() == plain.known.tolist() == [1704486600 + 7 * 86_400 * i for i in range(3)]
    assert local.digest() == plain.digest()
    (other,) = read_series([write(tmp_path / "cot.csv", GOOD, net=[1, 2, 4])])
    assert other.digest() != local.digest()
    assert other.digest(2) == local.digest(2)


# -- a saved agent


def test_a_saved_pipeline_goes_on_with_a_longer_file_bit_for_bit(tmp_path):
    bars = make_bars(900)
    data = [{"EURUSD": bars.iloc[a:z]} for a, z in ((0, 500), (500, 700), (700, 900))]
    pipeline = FeaturePipeline(own=with_series(weekly(tmp_path / "cot.csv", bars.iloc[:700]), None))
    known = pipeline.run_full_pipeline(*data)
    state = json.loads(json.dumps(pipeline.state()))
    read_series([weekly(tmp_path / "cot.csv", bars)])  # has newer rows
    fitted, memory = FeaturePipeline.from_state(state), Memory()
    parts = [fitted.extend({"EURUSD": bars.iloc[a:b]}, memory) for a, b in ((0, 650), (650, 651), (651, 900))]
    found = np.concatenate(parts)
    np.testing.assert_array_equal(found[60:700], pd.concat(known[:2]).to_numpy()[60:])
    assert (found[-1] != known[2].to_numpy()[-1]).any()  # it knows the newer values
    again = FeaturePipeline.from_state(state).run_full_pipeline(*data)[2]
    np.testing.assert_array_equal(found[700:], again.to_numpy())


def test_a_saved_pipeline_needs_its_series_with_the_same_past(tmp_path, monkeypatch):
    data = make_data(900)
    path = weekly(tmp_path / "cot.csv", whole(data))
    pipeline = FeaturePipeline(own=with_series(path))
    pipeline.run_full_pipeline(data.train, data.val, data.test)
    state = pipeline.state()
    rows = len(pd.read_csv(path))
    for change in ({"rows": rows - 1}, {"seed": 2}):
        read_series([weekly(path, whole(data), **change)])
        with pytest.raises(CheckpointError, match=says("cot.csv", rows)):
            FeaturePipeline.from_state(state)
    monkeypatch.setattr("sac_kernel.features.series._LOADED", {})
    with pytest.raises(CheckpointError, match=says("cot", "--series")):
        FeaturePipeline.from_state(state).run_full_pipeline(data.train, data.val, data.test)


@pytest.fixture
def saved(tmp_path):
    """An agent that observes a weekly series; its bars, the file, the market of its last fifth."""
    bars = make_bars(1500)
    path = weekly(tmp_path / "cot.csv", bars.iloc[:1300])
    own = with_series(path)
    save_agent(tmp_path / "agent.pt", {"EURUSD": bars}, 1, TradingEnvConfig(), (16, 16), own=own)
    return bars, path


def test_decisions_are_the_backtests_while_the_file_grows(saved, tmp_path):
    bars, path = saved
    config = TradingEnvConfig()
    full = read_series([weekly(path, bars)])
    pipeline = FeaturePipeline.from_checkpoint(tmp_path / "agent.pt")
    parts = [{"EURUSD": bars.iloc[a:z]} for a, z in ((0, 900), (900, 1200), (1200, 1500))]
    market = runner.market_of(parts[2]["EURUSD"], pipeline.run_full_pipeline(*parts)[2], config, "base")
    rows = len(full[0].known)
    assert sum(full[0].known > bars.index[1200].timestamp()) == 2  # reports of the test days

    weekly(path, bars.iloc[:1200])
    read_series([weekly(path, bars.iloc[:1300])])
    decider = Decider.from_checkpoint(tmp_path / "agent.pt", price_side="bid")
    decider.follow(bars.iloc[:1200])
    state = blank(Account)
    engine.reset(state, market.bars, market.terms, 0, 299, config.initial_equity, 0.0)
    for t in range(299):
        closed = bars.index[1200 + t] + pd.Timedelta("1h")
        known = int((full[0].known <= closed.timestamp()).sum())
        weekly(path, bars, rows=max(known, len(pd.read_csv(path))))  # a report is written when it is out
        decision = decider.decide(bars.iloc[: 1200 + t + 1], state)
        assert np.array_equal(decider.observed[-1], market.observed[t])
        engine.step(state, market.bars, market.minutes, market.terms, decision.action)
    assert len(pd.read_csv(path)) == rows


def test_a_file_that_ends_too_early_is_refused_for_a_decision(saved, tmp_path):
    bars, path = saved
    state = blank(Account)
    decider = Decider.from_checkpoint(tmp_path / "agent.pt", price_side="bid")
    decider.follow(bars.iloc[:1200])
    last = pd.Timestamp(pd.read_csv(path)["known_at"].iloc[-1]).tz_convert("UTC")
    # A week apart, so 10.5 days are too many: the first bar that closes after them is refused.
    late = int((bars.index + pd.Timedelta("1h")).searchsorted(last + pd.Timedelta("10.5D"), side="right"))
    assert late < 1500
    market = decider.append(bars.iloc[1200:late])
    assert len(market[0]) == late - 1200
    state.equity = state.start_equity = state.peak_equity = 1e5
    decider.decide_here(_at_end(decider, state))
    decider.append(bars.iloc[late : late + 1])
    with pytest.raises(DataError, match=says("cot.csv", str(last)[:16], 7.0)):
        decider.decide_here(_at_end(decider, state))
    weekly(path, bars)
    decider.append(bars.iloc[late + 1 : late + 2])
    decider.decide_here(_at_end(decider, state))  # the file is up to date


def _at_end(decider, state):
    state = state.copy()
    state.t = len(decider.rows) - 1
    return state


# -- the build


def test_the_build_sends_the_file_with_the_data_and_names_its_hash(tmp_path, monkeypatch):
    data = make_data(1600)
    path = weekly(tmp_path / "cot.csv", whole(data))
    for name in ("kernel-metadata.json", "dataset-metadata.json"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.setattr(wheels, "fetch_wheels", lambda _: ([], []))
    home = Home(tmp_path, "mine")
    given = {"series_files": [str(path)]}
    folders = build_kernel.stage(data, home, given)
    assert (folders["data"] / "series_cot.csv").read_bytes() == path.read_bytes()
    text, _ = build_kernel.build(given, home, data, folders.values())
    sources = ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
    cell = next(source for source in sources if "series_files: list[str] = " in source)
    assert 'series_files: list[str] = ["series_cot.csv"]' in cell
    digest = build_kernel.files.file_sha256(path)
    assert f"series_cot.csv {digest}" in cell
    assert str(tmp_path) not in text
    monkeypatch.setenv("SAC_INPUT_ROOT", str(tmp_path / "build"))
    config = RunConfig(series_files=("series_cot.csv",), expect_files=(f"series_cot.csv {digest}",))
    (series,) = config.feature_pipeline("EURUSD", 1).own.series
    assert series.digest() == Series.load(path).digest()  # the same name and values
    (folders["data"] / "series_cot.csv").write_text(path.read_text().replace("-05:00", "-04:00", 1))
    with pytest.raises(InputNotFoundError, match=says("series_cot.csv")):
        config.feature_pipeline("EURUSD", 1)


def test_a_series_that_begins_after_the_train_bars_is_refused_at_the_build(tmp_path):
    data = make_data(1600)
    late = data.val["EURUSD"].index[[0, 50]]
    path = write(tmp_path / "cot.csv", [moment.isoformat() for moment in late], net=[1, 2])
    with pytest.raises(ConfigError, match=says("cot")):
        check_run(data, {"series_files": [str(path)]})
    early = data.train["EURUSD"].index[[0, 50]]
    write(path, [moment.isoformat() for moment in early], net=[1, 2])
    check_run(data, {"series_files": [str(path)]})
