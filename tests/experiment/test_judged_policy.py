"""`judge policy.py`: a policy from elsewhere in the same engine; refused if it looks ahead or gives no targets."""

import json

import numpy as np
import pandas as pd
import pytest

from sac_kernel.backtest import baselines, runner
from sac_kernel.cli.main import main
from sac_kernel.core import strings
from sac_kernel.core.errors import DataError
from sac_kernel.experiment import judged, judged_policy
from sac_kernel.experiment.judged_policy import PolicyFile
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.ingest.whole import read_whole
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig
from sac_kernel.stats import trials
from tests.conftest import make_bars
from tests.support import says, told

pytestmark = pytest.mark.usefixtures("blank_figures")

MEANS = """
import numpy as np


def target(observations):
    close = observations["close"]
    return np.sign(close.rolling(24, min_periods=1).mean() - close.rolling(120, min_periods=1).mean())
"""
LONG = "def target(observations):\n    return [1.0] * len(observations)\n"
SIGNAL = """
import numpy as np


def target(observations):
    x = (observations["high"] / observations[["open", "close"]].max(axis=1) - 1.0) * 1e4 - 5.0
    return {sign} * np.sign(x.where(x.abs() > 0.3).ffill().fillna(0.0))
"""


def planted(n=3600, ic=0.12, persistence=0.98, sigma=1.5e-3, seed=3):
    """Hours whose next return is ic x sigma x a unit AR(1) + noise; the AR(1) is written into each high."""
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for t in range(1, n):
        x[t] = persistence * x[t - 1] + np.sqrt(1 - persistence**2) * rng.normal()
    x = np.clip(x, -4.5, 4.5)
    bars = make_bars(n, seed)
    close = 1.1 * np.exp(np.cumsum(np.append(0.0, sigma * (ic * x[:-1] + rng.normal(size=n - 1)))))
    opened = np.append(1.1, close[:-1])
    bars["open"], bars["close"] = opened, close
    bars["high"] = np.maximum(opened, close) * (1.0 + 1e-4 * (5.0 + x))
    bars["low"] = np.minimum(opened, close)
    return bars


def write(folder, text, name="mine.py"):
    (folder / name).write_text(text)
    return folder / name


def csv_of(bars, folder):
    bars.rename_axis("time").to_csv(folder / "EURUSD_H1.csv")
    return folder / "EURUSD_H1.csv"


def whole_of(path, **more):
    return read_whole(DataConfig(source="files", path=str(path), price_side="bid", **more))


def words(policy, data, output, *more):
    return ["judge", str(policy), "--data", str(data), "--price-side", "bid", "--output", str(output), *more]


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def hours(tmp_path_factory):
    return csv_of(make_bars(1800), tmp_path_factory.mktemp("bars"))


def test_a_policy_that_holds_one_is_buy_and_hold_bit_for_bit(hours, tmp_path):
    whole = whole_of(hours)
    subject = judged_policy.judged_policy(write(tmp_path, LONG), whole, whole.own)
    for tier in ("raw", "base", "retail"):
        market = judged.market_of(whole.own, subject.config, tier)
        assert runner.decisions(market) == 1799  # all rows: no warm-up, no split, no embargo
        own = runner.run_targets(market, subject.targets, 1e5, subject.policy, tier)
        hold = runner.run_targets(
            market, baselines.all_targets(market)[strings.HOLD], 1e5, strings.HOLD, tier
        )
        assert own.equity.tobytes() == hold.equity.tobytes()
        assert own.costs == hold.costs


def test_the_command_writes_a_report_without_training_and_counts_every_version(hours, tmp_path, caplog):
    out, policy = tmp_path / "out", write(tmp_path, MEANS)
    caplog.set_level("INFO", "sac_kernel")
    assert main(words(policy, hours, out)) == 0
    summary = summary_of(out)
    own, hold = (
        next(row for row in summary["table"] if row["policy"] == name and row["tier"] == "base")
        for name in ("mine.py", strings.HOLD)
    )
    # 120 closes of a random walk: the rule is long and short, and trades far more than buy and hold.
    assert own["trades"] > 5 > hold["trades"] == 2
    assert {row["tier"] for row in summary["table"]} == {"raw", "base", "retail"}
    assert not {strings.RIDGE, strings.SESSIONS} & {row["policy"] for row in summary["table"]}
    said = caplog.text
    assert summary["verdict"]["word"] in said
    assert summary["verdict"]["sentence"] in said
    assert summary["random"]["draws"] == 1000
    daily = pd.read_csv(out / "daily_returns.csv")["net_return_frac"]
    assert np.prod(1.0 + daily) - 1.0 == pytest.approx(own["net_return_frac"], rel=1e-12)
    assert len(pd.read_csv(out / "equity.csv")) == 1799
    assert len(pd.read_csv(out / "fills.csv")) == own["trades"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for title in (strings.FIGURES["training"], strings.FIGURES["drift"], strings.FILES, strings.SEARCH_TITLE):
        assert f"<h2>{title}</h2>" not in page
    for title in (strings.MONTH_BY_MONTH, strings.FIGURES["costs"], strings.REGIMES_TITLE, strings.DATA):
        assert f"<h2>{title}</h2>" in page

    assert main(words(policy, hours, out)) == 0  # the same version again
    assert len(trials.read(out / "trials.csv")) == 1
    write(tmp_path, MEANS.replace("24", "36"))
    assert main(words(policy, hours, out)) == 0
    first, second = trials.read(out / "trials.csv")
    assert first.config_hash != second.config_hash
    assert first.data_hash == second.data_hash
    assert summary_of(out)["verdict"]["trials"]["listed"] == 2
    np.testing.assert_allclose(first.daily, daily, atol=5e-8)


def test_a_planted_signal_is_an_edge_and_its_reverse_is_none(tmp_path):
    data = csv_of(planted(), tmp_path)
    found = {}
    for name, sign in (("knows", 1.0), ("reversed", -1.0)):
        policy = write(tmp_path, SIGNAL.format(sign=sign), f"{name}.py")
        assert main(words(policy, data, tmp_path / name)) == 0
        found[name] = summary_of(tmp_path / name)
    assert found["knows"]["verdict"]["word"] == "edge (null not run)"
    assert found["reversed"]["verdict"]["word"] == "none"
    own = next(r for r in found["knows"]["table"] if r["policy"] == "knows.py" and r["tier"] == "base")
    # ic x sigma x E|x| an hour, |x| = .8 on average: no more than that, and most of it.
    expected = 0.12 * 1.5e-3 * 0.8 * 3600
    assert 0.5 * expected < np.log1p(own["net_return_frac"]) < 1.6 * expected


def test_the_rows_between_two_times_are_judged_and_the_earlier_ones_are_the_past(hours, tmp_path):
    policy = write(tmp_path, MEANS)
    start, end = pd.Timestamp("2017-02-01", tz="UTC"), pd.Timestamp("2017-03-01", tz="UTC")
    whole = whole_of(hours)
    every = judged_policy.judged_policy(policy, whole, whole.own)
    part = whole.until(end)
    bars = judged.rows_between(part.own, start, end)
    some = judged_policy.judged_policy(policy, part, bars)
    assert bars.index[0] == start
    assert bars.index[-1] == end - pd.Timedelta(hours=1)
    at = whole.own.index.get_indexer(bars.index[:-1])
    np.testing.assert_array_equal(some.targets, every.targets[at])
    more = ("--from", "2017-02-01", "--until", "2017-03-01T00:00")
    assert main(words(policy, hours, tmp_path / "out", *more)) == 0
    assert summary_of(tmp_path / "out")["data"]["bars"] == len(bars) == 20 * 24
    with pytest.raises(DataError, match=says("--from", "2031")):
        judged.rows_between(whole.own, pd.Timestamp("2031-01-01", tz="UTC"), None)
    assert main(words(policy, hours, tmp_path / "out", "--from", "soon")) == 2


def test_a_processed_file_is_judged_on_all_its_splits(tmp_path):
    data = split_table(BarTable(make_bars(1800), "synthetic", "UTC"), DataConfig())
    write_processed(data, tmp_path / "bars.h5")
    assert (
        main(
            [
                "judge",
                str(write(tmp_path, LONG)),
                "--data",
                str(tmp_path / "bars.h5"),
                "--output",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    rows = sum(len(split["EURUSD"]) for split in data.splits.values())
    assert 1500 < rows < 1800  # the embargoes are not in the file
    assert summary_of(tmp_path / "out")["data"]["bars"] == rows


def test_own_costs_have_their_own_tiers(hours, tmp_path):
    policy = write(tmp_path, LONG)
    assert (
        main(
            words(policy, hours, tmp_path / "out", "--costs", "spread_bps=4,commission_bps=1,slippage_bps=0")
        )
        == 0
    )
    table = summary_of(tmp_path / "out")["table"]
    paid = {row["tier"]: row["cost_frac"] for row in table if row["policy"] == "mine.py"}
    swap = 2.0 * paid["raw"] - paid["base"]  # x .5 and x 1 of all but the swap
    assert paid["retail"] - swap == pytest.approx(2.0 * (paid["base"] - swap), rel=1e-2)


# -- what is refused


def seen_of(n=900):
    return pd.DataFrame(make_bars(n))[["open", "high", "low", "close"]]


def policy_of(tmp_path, text):
    return PolicyFile.load(write(tmp_path, text))


def test_a_policy_that_reads_the_next_close_is_refused_with_its_row(tmp_path):
    ahead = (
        "import numpy as np\n\n\ndef target(observations):\n"
        "    return np.sign(observations['close'].shift(-1) - observations['close']).fillna(0.0)\n"
    )
    seen = seen_of()
    values = np.sign(np.diff(seen["close"].to_numpy()))
    # The row before the first change, from row 1 on: without the row after it, its target is 0.
    first = max(1, int(np.flatnonzero(np.diff(values))[0]))
    with pytest.raises(DataError, match=says("mine.py", f"row {first}", seen.index[first])):
        judged_policy.assert_policy_causal(policy_of(tmp_path, ahead), seen)


def test_a_policy_that_seldom_trades_is_caught_too(tmp_path):
    """It is flat in 895 of 900 rows, so 20 random rows would hardly ever see it look ahead."""
    rare = (
        "def target(observations):\n    jump = (observations['close'].shift(-1) / observations['close'] - 1).abs()\n"
        "    return (jump > jump.expanding(2).max().shift(1) * 1.05).astype(float)\n"
    )
    seen = seen_of()
    policy = policy_of(tmp_path, rare)
    assert 0 < policy.targets(seen).sum() < 20
    with pytest.raises(DataError, match=says("mine.py", "row")):
        judged_policy.assert_policy_causal(policy, seen)


def test_a_look_ahead_that_never_mattered_on_these_bars_is_caught_by_a_changed_future(tmp_path):
    """It leaves the market before a fall of 15 % in an hour, and these bars have none: all targets are 1."""
    text = (
        "def target(observations):\n    close = observations['close']\n"
        "    return 1.0 - (close.shift(-1) / close < 0.85)\n"
    )
    seen = seen_of()
    policy = policy_of(tmp_path, text)
    assert set(policy.targets(seen)) == {1.0}
    with pytest.raises(DataError, match=says("mine.py", "row")):
        judged_policy.assert_policy_causal(policy, seen)


def test_a_mean_of_the_whole_table_is_refused(tmp_path):
    text = "def target(observations):\n    c = observations['close']\n    return (c > c.mean()) * 1.0\n"
    with pytest.raises(DataError, match=says("mine.py", "row")):
        judged_policy.assert_policy_causal(policy_of(tmp_path, text), seen_of())


def test_the_past_passes_with_the_number_of_rows(tmp_path):
    checked = judged_policy.assert_policy_causal(policy_of(tmp_path, MEANS), seen_of())
    assert checked["rows"] == 20
    assert 2 <= checked["changes"] <= 32


def test_random_numbers_without_a_seed_are_refused(tmp_path):
    text = (
        "import numpy as np\n\n\ndef target(o):\n    return np.random.default_rng().uniform(-1, 1, len(o))\n"
    )
    with pytest.raises(DataError, match=says("mine.py", "row 0")):
        judged_policy.assert_policy_causal(policy_of(tmp_path, text), seen_of())


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("o['close'].rolling(5).mean() * 0", ("nan", "row 0", "2017-01-02")),
        ("[0.5] * 3 + [1.5] + [0.0] * (len(o) - 4)", ("1.5", "row 3", "2017-01-02 03:00")),
        ("[0.0] * 5", ("900", "5")),
        ("o[['close']] * 0", ("900", "1")),
        ("['x'] * len(o)", ("mine.py",)),
        ("o['nothing']", ("line 2", "nothing")),
        ("(o['close'] * 0)[::-1]", ("index",)),
        ("float('inf') * o['close']", ("inf", "row 0")),
        ("None", ("mine.py",)),
    ],
)
def test_what_is_no_target_for_every_row_is_refused_with_file_and_row(body, named, tmp_path):
    policy = policy_of(tmp_path, f"def target(o):\n    return {body}\n")
    with pytest.raises(DataError) as refused:
        policy.targets(seen_of())
    assert told(refused.value, "mine.py", *named)


def test_a_policy_cannot_change_what_the_next_check_sees(tmp_path):
    seen = seen_of()
    before = seen.copy()
    policy_of(tmp_path, "def target(o):\n    o['close'] = 0.0\n    return o['close']\n").targets(seen)
    pd.testing.assert_frame_equal(seen, before)


def test_a_file_without_the_function_or_without_a_file_is_refused(tmp_path, hours):
    with pytest.raises(DataError, match=says("target(observations)")):
        policy_of(tmp_path, "x = 1\n")
    assert main(words(tmp_path / "none.py", hours, tmp_path / "out")) == 2


def test_the_observations_are_bars_and_causal_features_without_nan(hours):
    whole = whole_of(hours)
    seen = judged_policy.observations(whole)
    pd.testing.assert_frame_equal(
        seen[["open", "high", "low", "close"]], pd.DataFrame(whole.own), check_names=False
    )
    assert np.isfinite(seen.to_numpy()).all()
    cut = judged_policy.observations(whole.until(whole.own.index[1000]))
    pd.testing.assert_frame_equal(cut, seen.iloc[:1000])
    assert TradingEnvConfig().decision_interval_min == 0  # every row is a decision
