"""README's step-by-step snippet gives the backtest's figures for the file that it loads, with either learner."""

import re
from pathlib import Path

import pytest

from sac_kernel.backtest import runner
from sac_kernel.core.errors import CheckpointError
from sac_kernel.experiment.run_config import RunConfig
from sac_kernel.market.account import TradingEnvConfig
from sac_kernel.market.envs import TradingEnvironment
from sac_kernel.prices.ingest.writer import write_processed
from tests.live.test_exact_agent import saved_agent
from tests.use_models import lively_agent

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/fr/retour.md")


def snippet(page):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if "select_action" in block]
    return found


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("learner", ["exact", "gaussian"])
def test_the_snippet_prints_the_backtests_figures(page, learner, sample, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_processed(sample, tmp_path / "data/processed/processed_data.h5")
    (tmp_path / "outputs").mkdir()
    path, config = tmp_path / "outputs/agent_1_final.pt", RunConfig(learner=learner).env_config(1)
    if learner == "exact":
        agent, market, _ = saved_agent(path, sample, config)
    else:
        agent, market = lively_agent(path, sample, 1, config)
    wanted = runner.validate(agent, market, config.initial_equity)
    assert wanted.trades > 10
    exec(snippet(page), {})
    said = capsys.readouterr().out
    total = wanted.equity[-1] / wanted.start_equity - 1.0
    assert f"{total:.2%}" in said
    assert f"{wanted.log_growth:.4f}" in said  # rewards are changes of log equity


def test_an_exact_agent_refuses_the_state_of_another_account(sample, tmp_path):
    agent, _, frames = saved_agent(tmp_path / "a.pt", sample, TradingEnvConfig(observes="target"))
    env = TradingEnvironment(sample.test["EURUSD"], frames[2], TradingEnvConfig(), eval_mode=True)
    state, _ = env.reset()
    assert len(state) == agent.width  # as many inputs: only their meaning differs
    for act in (
        lambda: agent.select_action(state, evaluate=True),
        lambda: runner.greedy_policy(agent)(state),
    ):
        with pytest.raises(CheckpointError, match="fill_cost"):
            act()
    free = TradingEnvConfig(observes="target", costs="spread_bps=0,commission_bps=0,slippage_bps=0")
    env = TradingEnvironment(sample.test["EURUSD"], frames[2], free, eval_mode=True)
    agent.select_action(env.reset()[0], evaluate=True)  # an account without costs is one
