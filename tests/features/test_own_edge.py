"""The command line finds an edge that only an own feature knows, and refuses the same feature from the future."""

import json

import numpy as np
import pytest

import build_kernel
from sac_kernel.cli.main import main
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.ingest.writer import write_processed
from sac_kernel.prices.pipeline import DataConfig
from tests.conftest import make_bars

LEAD = """
def features(bars):
    lead = bars["LEAD"]["close"].reindex(bars["EURUSD"].index, method="ffill")
    return (lead - 100.0){shift}.fillna(0.0).to_frame("lead")
"""


def planted(n=9000, ic=0.1, persistence=0.98, sigma=1.5e-3, seed=3):
    """EURUSD hours whose next return is ic x sigma x (LEAD's close - 100) + noise; LEAD is a unit AR(1)."""
    rng = np.random.default_rng(seed)
    x = np.zeros(n)
    for t in range(1, n):
        x[t] = persistence * x[t - 1] + np.sqrt(1 - persistence**2) * rng.normal()
    bars = make_bars(n, seed)
    returns = np.append(0.0, sigma * (ic * x[:-1] + rng.normal(size=n - 1)))
    close = 1.1 * np.exp(np.cumsum(returns))
    opened = np.append(1.1, close[:-1])
    for name, values in {
        "open": opened, "close": close, "high": np.maximum(opened, close), "low": np.minimum(opened, close),
    }.items():  # fmt: skip
        bars[name] = values
    lead = make_bars(n, seed, instrument="LEAD")
    for name in ("open", "high", "low", "close"):
        lead[name] = 100.0 + x
    return bars, lead


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    import dataclasses

    own, lead = (split_table(BarTable(b, "synthetic", "UTC"), DataConfig()) for b in planted())
    both = {
        split: {"EURUSD": getattr(own, split)["EURUSD"], "LEAD": next(iter(getattr(lead, split).values()))}
        for split in ("train", "val", "test")
    }
    path = tmp_path_factory.mktemp("planted") / "p.h5"
    write_processed(dataclasses.replace(own, **both), path)
    return path


@pytest.mark.learns
def test_an_edge_that_only_the_own_feature_knows_is_found(data, tmp_path):
    (tmp_path / "lead.py").write_text(LEAD.format(shift=""))
    given = ["--features", str(tmp_path / "lead.py"), "--only-own-features"]
    growth = {}
    for name, options in {"own": given, "thirty": []}.items():
        words = ["train", "--data", str(data), "--output", str(tmp_path / name), "--set", "num_episodes=40"]
        assert main([*words, *options]) == 0
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        agent = next(row for row in summary["table"] if row["kind"] == "agent" and row["tier"] == "base")
        growth[name] = np.log1p(agent["net_return_frac"])
        hold = next(r for r in summary["table"] if r["policy"] == "buy and hold" and r["tier"] == "base")
    # E[return] = ic sigma |x| an hour at most, |x| = .8 on average: about .9 of it after costs of a slow signal.
    test_hours = agent["days"] * 24 * 5 / 5
    assert growth["own"] > 0.4 * 0.1 * 1.5e-3 * 0.8 * test_hours
    assert growth["own"] > 3 * abs(growth["thirty"])
    assert growth["own"] > np.log1p(hold["net_return_frac"])


def test_the_same_feature_from_the_next_bar_is_refused_at_the_build(data, tmp_path, capsys, monkeypatch):
    (tmp_path / "ahead.py").write_text(LEAD.format(shift=".shift(-1)"))
    words = ["--data", str(data), "--features", str(tmp_path / "ahead.py"), "--name", "ahead-test"]
    monkeypatch.setattr(build_kernel, "ROOT", tmp_path / "clone")
    assert build_kernel.main(words) == 2
    said = capsys.readouterr().err
    assert "lead" in said
    assert "Row " in said
    assert not list((tmp_path / "clone").rglob("train.ipynb"))
