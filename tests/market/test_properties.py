"""What must hold for every input: the money, the ring, the splits, the manifest, the parameters."""

import dataclasses
import itertools
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sac_kernel.agent.config import SACConfig
from sac_kernel.agent.replay import Batch, ReplayBuffer
from sac_kernel.cli.settings import parse_settings
from sac_kernel.core import files
from sac_kernel.core.config import from_flat, to_flat
from sac_kernel.core.errors import CheckpointError, DataError, SacKernelError
from sac_kernel.experiment import run_config
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.market import engine
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.market import prepare_market
from sac_kernel.market.records import COSTS, Account, blank
from sac_kernel.prices.bars import Bars
from sac_kernel.prices.ingest.split import split_table
from sac_kernel.prices.ingest.tables import BarTable
from sac_kernel.prices.pipeline import DataConfig
from tests.conftest import make_bars
from tests.support import says

SLOW = {"deadline": None, "derandomize": True, "database": None}
CPU = torch.device("cpu")


# -- the equity identity


@given(
    seed=st.integers(0, 10_000),
    side=st.sampled_from(["bid", "ask", "mid"]),
    tier=st.sampled_from(["raw", "base", "retail"]),
    swap=st.sampled_from([0.0, 0.6, -0.4]),
    steps=st.integers(1, 60),
)
@settings(max_examples=60, **SLOW)
def test_equity_is_the_start_plus_price_moves_less_every_cost_that_is_reported(seed, side, tier, swap, steps):
    """Nothing comes from nowhere: gross profit at mid prices, less spread, commission, slippage and swap."""
    rng = np.random.default_rng(seed)
    bars = Bars(make_bars(120, seed), side=side)
    config = TradingEnvConfig(
        horizon=60, price_side=side, cost_tier=tier, swap_long_bps=swap, swap_short_bps=-swap
    )
    frame = bars[["open"]].rename(columns={"open": "x"}).astype(np.float32) * 0
    market = prepare_market(bars, frame, config, close_at_end=False)
    rows, par = market.bars, market.terms
    sign = {"bid": 1.0, "ask": -1.0, "mid": 0.0}[side]
    mid_open = rows["open"] * (1 + sign * rows["spread_open"] / 2)
    mid_close = rows["close"] * (1 + sign * rows["spread_close"] / 2)
    state, start = blank(Account), 1e5
    engine.reset(state, rows, par, market.first_bar, 100, start, 0.0)
    gross, total = 0.0, 0.0
    for _ in range(steps):
        t, old = int(state.t), state.units
        total += engine.step(state, rows, market.minutes, par, float(rng.uniform(-1, 1)))
        assert state.t == t + 1
        new = state.units
        gross += old * (mid_open[t + 1] - mid_close[t]) + new * (mid_close[t + 1] - mid_open[t + 1])
    t = int(state.t)
    to_close = abs(state.units) * rows["close"][t] * rows["spread_close"][t] / 2
    costs = sum(state[f"{kind}_paid"] for kind in COSTS)
    assert state.equity == pytest.approx(start + gross - costs - to_close, rel=1e-10)
    assert total == pytest.approx(math.log(state.equity / start), abs=1e-10)


# -- the replay ring


@given(capacity=st.integers(1, 12), sizes=st.lists(st.integers(1, 12), max_size=12), cut=st.integers(0, 12))
@settings(max_examples=150, **SLOW)
def test_a_ring_holds_the_last_of_a_list_whatever_was_added_and_wherever_it_was_restored(
    capacity, sizes, cut
):
    ring, seen = ReplayBuffer(capacity, 2, 1, CPU), []
    for number, size in enumerate(min(size, capacity) for size in sizes):
        if number == cut:
            ring, old = ReplayBuffer(capacity, 2, 1, CPU), ring
            ring.restore(old.state())
        first = torch.arange(len(seen), len(seen) + size, dtype=torch.float32)
        ring.add(
            Batch(
                first[:, None].expand(-1, 2), first[:, None], first, first % 2, -first[:, None].expand(-1, 2)
            )
        )
        seen += first.tolist()
        assert len(ring) == min(len(seen), capacity)
        held = ring.state()["rows"]
        assert sorted(held["reward"].tolist()) == seen[-capacity:]
        assert torch.equal(held["obs"][:, 0], held["reward"])
        assert torch.equal(held["next_obs"][:, 1], -held["reward"])
        drawn = ring.sample(50, torch.Generator().manual_seed(number))
        assert set(drawn.reward.tolist()) <= set(seen[-capacity:])


# -- the splits


@given(n=st.integers(60, 900), seed=st.integers(0, 99), hours=st.sampled_from([1, 4, 24]))
@settings(max_examples=40, **SLOW)
def test_splits_are_disjoint_in_order_with_an_embargo_and_lose_no_other_bar(n, seed, hours):
    bars = make_bars(n, seed, hours * 3600)
    config = DataConfig()
    try:
        data = split_table(BarTable(bars, "synthetic", "UTC"), config)
    except DataError:
        return  # too few bars for three splits: said, not split
    parts = [next(iter(split.values())) for split in data.splits.values()]
    lost = 0
    for earlier, later in itertools.pairwise(parts):
        between = bars.index[(bars.index > earlier.index[-1]) & (bars.index < later.index[0])]
        assert earlier.index[-1] < later.index[0]
        assert len(between) >= 1  # the embargo
        lost += len(between)
    assert sum(len(part) for part in parts) + lost == n
    for part in parts:
        assert part.equals(bars.loc[part.index])


# -- the manifest


NAMES = st.lists(st.text("abcé ._-", min_size=1, max_size=8), min_size=1, max_size=5, unique_by=str.casefold)


@given(names=NAMES, data=st.data())
@settings(max_examples=60, **SLOW)
def test_a_manifest_passes_as_written_and_refuses_any_changed_byte(names, data):
    names = [f"{name}x" for name in names if not name.startswith(".")] or ["x"]
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        contents = {name: data.draw(st.binary(max_size=40)) for name in names}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        files.write_manifest(folder, names, {"step": 3})
        assert files.verify_manifest(folder)["files"].keys() == contents.keys()
        name = data.draw(st.sampled_from(names))
        changed = bytearray(contents[name] or b"\0")
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 + data.draw(st.integers(0, 254))
        (folder / name).write_bytes(changed)
        with pytest.raises(CheckpointError, match=says("1 of")):
            files.verify_manifest(folder)


# -- the parameters


LEVELS = {
    "num_episodes": st.integers(1, 200),
    "seeds": st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True).map(tuple),
    "agent_ids": st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3, unique=True).map(tuple),
    "sac_learning_rate": st.floats(1e-6, 1.0),
    "sac_hidden_dims": st.lists(st.integers(1, 512), min_size=1, max_size=4).map(tuple),
    "sac_gamma": st.floats(0.01, 0.9999),
    "env_cost_tier": st.sampled_from(["raw", "base", "retail"]),
    "env_exposure_cap": st.floats(0.1, 30.0),
    "env_horizon": st.integers(0, 5000),
    "allow_cpu": st.booleans(),
    "time_budget_h": st.floats(0.01, 12.0),
    "output_dir": st.text("abc/é _-", max_size=12),
}


@given(st.fixed_dictionaries({}, optional=LEVELS))
@settings(max_examples=100, **SLOW)
def test_parameters_come_back_from_text_and_from_flat_values(values):
    try:
        config = RunConfig.from_flat({"checkpoint_frequency": 50, **values})
    except SacKernelError:
        return
    texts = [f"{name}={list(v) if isinstance(v, tuple) else v}" for name, v in values.items()]
    parsed = parse_settings([*texts, "checkpoint_frequency=50"])
    # Text loses its outer blanks, as a command line's would.
    expected = {**config.flat(), "output_dir": config.output_dir.strip()}
    assert {**RunConfig().flat(), **parsed} == expected
    again = run_config.from_parameters({**RunConfig().flat(), **parsed})
    assert again == dataclasses.replace(config, output_dir=config.output_dir.strip())
    for agent_id in config.agent_ids:
        for part in (config.sac_config(agent_id), config.env_config(agent_id)):
            assert from_flat(type(part), to_flat(part), "here") == part
    assert isinstance(config.sac_config(config.agent_ids[0]), SACConfig)
