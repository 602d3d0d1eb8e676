"""Own features: in the table, in a saved pipeline, bar by bar, in the notebook; refused if they look ahead."""

import json

import numpy as np
import pandas as pd
import pytest

import build_kernel
from sac_kernel.core.errors import CheckpointError, ConfigError, DataError, InputNotFoundError
from sac_kernel.core.homes import Home
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.features.causality import assert_causal
from sac_kernel.features.checks import OwnPipeline
from sac_kernel.features.indicators import Memory
from sac_kernel.features.own import OwnFeatures, loaded
from sac_kernel.features.pipeline import FeaturePipeline
from tests.conftest import make_bars, make_data

GAP = """
import pandas as pd


def features(bars):
    own = bars["EURUSD"]
    gap = own["open"] / own["close"].shift(1) - 1
    return pd.DataFrame({"gap_mean": gap.rolling(20).mean(), "gap": gap}, index=own.index).iloc[:, :2]
"""
AHEAD = """
def features(bars):
    own = bars["EURUSD"]
    return (own["close"].shift(-1) / own["close"] - 1).fillna(0.0).to_frame("next")
"""


def own_of(tmp_path, text=GAP, name="mine.py"):
    (tmp_path / name).write_text(text)
    return OwnFeatures.load(tmp_path / name)


def by_hand(bars):
    opened, close = bars["open"].to_numpy(), bars["close"].to_numpy()
    gap = np.append(np.nan, opened[1:] / close[:-1] - 1)
    mean = [np.nan] * 20 + [gap[i - 19 : i + 1].mean() for i in range(20, len(gap))]
    return np.array(mean), gap


def test_the_features_join_the_thirty_scaled_on_train_rows(tmp_path):
    data = make_data(900)
    plain = FeaturePipeline().run_full_pipeline(data.train, data.val, data.test)
    pipeline = FeaturePipeline(own=own_of(tmp_path))
    frames = pipeline.run_full_pipeline(data.train, data.val, data.test)
    assert list(frames[0].columns) == [*plain[0].columns, "gap_mean", "gap"]
    np.testing.assert_array_equal(frames[2][plain[2].columns], plain[2])
    bars = pd.concat([split["EURUSD"] for split in data.splits.values()])
    mean, gap = by_hand(bars)
    train = slice(48, len(data.train["EURUSD"]))
    for name, values in (("gap_mean", mean), ("gap", gap)):
        wanted = np.clip((values - values[train].mean()) / values[train].std(), -5, 5)
        found = pd.concat([frame[name] for frame in frames]).to_numpy()
        np.testing.assert_allclose(found[48:], wanted[48:], atol=2e-5)


def test_they_may_replace_the_thirty_and_begin_late(tmp_path):
    data = make_data(900)
    late = own_of(tmp_path, GAP.replace("rolling(20)", "rolling(90)"))
    frame = FeaturePipeline(own=late, only_own=True).run_full_pipeline(data.train, data.val, data.test)[0]
    assert list(frame.columns) == ["gap_mean", "gap"]
    assert np.isfinite(frame.to_numpy()).all(axis=1).argmax() == 90  # the first gap needs a bar before it


def test_a_saved_pipeline_names_the_file_and_needs_it(tmp_path, monkeypatch):
    data = make_data(900)
    own = own_of(tmp_path)
    pipeline = FeaturePipeline(own=own)
    wanted = pipeline.run_full_pipeline(data.train, data.val, data.test)[2]
    state = json.loads(json.dumps(pipeline.state()))
    assert state["own"]["sha256"] == own.sha256
    assert state["own"]["names"] == ["gap_mean", "gap"]
    again = FeaturePipeline.from_state(state).run_full_pipeline(data.train, data.val, data.test)[2]
    pd.testing.assert_frame_equal(again, wanted)
    monkeypatch.setattr("sac_kernel.features.own._LOADED", {})
    assert loaded(own.sha256) is None
    with pytest.raises(CheckpointError, match=own.sha256[:12]):
        FeaturePipeline.from_state(state).run_full_pipeline(data.train, data.val, data.test)


def test_bar_by_bar_equals_one_pass(tmp_path):
    data = make_data(900)
    pipeline = FeaturePipeline(own=own_of(tmp_path))
    frames = pipeline.run_full_pipeline(data.train, data.val, data.test)
    bars, memory = pd.concat([split["EURUSD"] for split in data.splits.values()]), Memory()
    fitted = FeaturePipeline.from_state(pipeline.state())
    parts = [fitted.extend({"EURUSD": bars.iloc[a:b]}, memory) for a, b in ((0, 700), (700, 701), (701, 900))]
    found, wanted = np.concatenate(parts), pd.concat(frames).to_numpy()
    np.testing.assert_array_equal(found[60:], wanted[60:])


def test_other_instruments_that_are_read_are_needed_and_no_others(tmp_path):
    text = """
def features(bars):
    index = bars["EURUSD"].index
    return bars["WTI"]["close"].reindex(index, method="ffill").to_frame("oil")
"""
    bars = {name: make_bars(400, seed=i) for i, name in enumerate(("EURUSD", "WTI", "NATGAS"))}
    parts = [{k: b.iloc[a:z] for k, b in bars.items()} for a, z in ((0, 300), (300, 350), (350, 400))]
    pipeline = FeaturePipeline(own=own_of(tmp_path, text), only_own=True)
    pipeline.run_full_pipeline(*parts)
    assert pipeline.instruments == ("WTI",)


def test_the_past_passes_and_a_look_ahead_is_refused_with_its_row(tmp_path):
    bars = {"EURUSD": make_bars(900)}
    report = assert_causal(OwnPipeline(own_of(tmp_path), "EURUSD"), bars)
    assert report.features == 2
    assert report.memory_bars == 32  # 21 bars, in powers of two
    rows = np.sort(np.random.default_rng(0).integers(2, 899, size=20))
    with pytest.raises(DataError, match=rf"Row {rows[0]} .*next"):
        assert_causal(OwnPipeline(own_of(tmp_path, AHEAD), "EURUSD"), bars)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("def features(bars:\n", "mine.py"),
        ("x = 1\n", "mine.py"),
        ("exit()\n", "mine.py"),
        ("def features(bars):\n    exit()\n", "line 2"),
        ("def features(bars):\n    return bars['GBPUSD']\n", "line 2"),
        ("def features(bars):\n    return 3\n", "int"),
        ("def features(bars):\n    return bars['EURUSD'].iloc[1:]\n", "899"),
        ("def features(bars):\n    return bars['EURUSD'][[]]\n", r"\[\]"),
        (
            "def features(bars):\n    b = bars['EURUSD'][['open']].astype(str)\n    return b + 'x'\n",
            "mine.py",
        ),
        (
            "def features(bars):\n    b = bars['EURUSD'][['open']] * 1.0\n    b.iloc[7] = float('inf')\n    return b\n",
            "open is inf",
        ),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(text, place, tmp_path):
    with pytest.raises(DataError, match=place):
        own_of(tmp_path, text).table({"EURUSD": make_bars(900)}, "EURUSD")


def test_the_users_bars_are_not_changed(tmp_path):
    bars = make_bars(100)
    before = bars.copy()
    text = "def features(bars):\n    b = bars['EURUSD']\n    b['open'] = 0.0\n    return b[['open']]\n"
    own_of(tmp_path, text).table({"EURUSD": bars}, "EURUSD")
    pd.testing.assert_frame_equal(pd.DataFrame(bars), pd.DataFrame(before))


def test_another_version_of_the_file_is_refused(tmp_path):
    first = own_of(tmp_path)
    (tmp_path / "mine.py").write_text(GAP + "\n# changed\n")
    with pytest.raises(CheckpointError, match=first.sha256[:12]):
        OwnFeatures.load(tmp_path / "mine.py", first.sha256)
    (tmp_path / "mine.py").write_bytes(GAP.replace("\n", "\r\n").encode())
    assert OwnFeatures.load(tmp_path / "mine.py", first.sha256) == first  # line ends are no version
    with pytest.raises(InputNotFoundError, match=r"none\.py"):
        OwnFeatures.load(tmp_path / "none.py")


def test_a_name_of_the_thirty_is_refused(tmp_path):
    data = make_data(900)
    own = own_of(tmp_path, GAP.replace('"gap"', '"eurusd_rsi_4h"'))
    with pytest.raises(DataError, match="eurusd_rsi_4h"):
        FeaturePipeline(own=own).run_full_pipeline(data.train, data.val, data.test)


def test_only_own_features_need_a_file():
    with pytest.raises(ConfigError, match="features_file"):
        RunConfig(only_own_features=True)


def test_the_notebook_carries_the_file_and_its_hash(tmp_path):
    own, data = own_of(tmp_path), make_data(900)
    given = {"features_file": str(tmp_path / "mine.py"), "features_hash": own.sha256}
    text, _ = build_kernel.build(given, Home(tmp_path, "mine"), data, [])
    sources = ["".join(cell["source"]) for cell in json.loads(text)["cells"]]
    assert sum(GAP in source and source.startswith("%%writefile") for source in sources) == 1
    parameters = next(s for s in sources if "features_hash: str" in s)
    assert own.sha256 in parameters
    assert str(tmp_path) not in "".join(sources)
